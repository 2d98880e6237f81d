// Two-bit ternary weights. One token: AND with 03, 0C, 30 leaves the codes times 1, 4 or 16; the fourth field would be
// negative under C0, as sdot is signed, and is shifted down, to weight 1. Sums of each weight are kept apart and
// shifted back once a group: one logic instruction for each sdot.
#include "linear.h"

namespace tercet {
namespace neon {
namespace {

// The sum of weight 16 grows by at most 4*48*128 a tile: flushed before it overflows.
constexpr int32_t FLUSH = 65536;

struct T2Masked {
    template <int R, int N>
    TERCET_INLINE void add_some(Sums<R, N>& d, const uint8_t* codes, int64_t stride, const int8_t* x, int32_t tiles) {
        const uint8x16_t mask1 = vdupq_n_u8(0x03), mask4 = vdupq_n_u8(0x0c), mask16 = vdupq_n_u8(0x30);
        Sums<R, N> by4, by16;
        for (int r = 0; r < R; r++)
            for (int i = 0; i < QUARTERS; i++) by4[r][0][i] = by16[r][0][i] = vdupq_n_s32(0);
        for (int32_t c = 0; c < tiles; c++, codes += TILE_BYTES, x += T2::columns) {
            const int8x16_t quads = vld1q_s8(x);
#pragma GCC unroll 2
            for (int r = 0; r < R; r++) {
                prefetch(codes + r * stride);
#pragma GCC unroll 4
                for (int i = 0; i < QUARTERS; i++) {
                    const uint8x16_t rows = vld1q_u8(codes + r * stride + 16 * i);
                    const int8x16_t c0 = vreinterpretq_s8_u8(vandq_u8(rows, mask1));
                    const int8x16_t c1 = vreinterpretq_s8_u8(vandq_u8(rows, mask4));
                    const int8x16_t c2 = vreinterpretq_s8_u8(vandq_u8(rows, mask16));
                    const int8x16_t c3 = vreinterpretq_s8_u8(vshrq_n_u8(rows, 6));
                    d[r][0][i] = vdotq_laneq_s32(d[r][0][i], c0, quads, 0);
                    by4[r][0][i] = vdotq_laneq_s32(by4[r][0][i], c1, quads, 1);
                    by16[r][0][i] = vdotq_laneq_s32(by16[r][0][i], c2, quads, 2);
                    d[r][0][i] = vdotq_laneq_s32(d[r][0][i], c3, quads, 3);
                }
            }
        }
        for (int r = 0; r < R; r++)
            for (int i = 0; i < QUARTERS; i++)
                d[r][0][i] = vsraq_n_s32(vsraq_n_s32(d[r][0][i], by4[r][0][i], 2), by16[r][0][i], 4);
    }

    template <int R, int N>
    TERCET_INLINE void add(Sums<R, N>& d, const uint8_t* codes, int64_t stride, const int8_t* x, int64_t,
                           int32_t tiles) {
        static_assert(N == 1, "the sums of more tokens do not fit the registers");
        for (int32_t c = 0; c < tiles; c += FLUSH)
            add_some<R, N>(d, codes + (int64_t)c * TILE_BYTES, stride, x + (int64_t)c * T2::columns,
                           tiles - c < FLUSH ? tiles - c : FLUSH);
    }
};

} // namespace
} // namespace neon

TERCET_LINEAR(t2_linear_neon) {
    neon::linear<T2, neon::T2Masked, 2>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet
