// Binary weights. One token: cmtst with a bit gives the byte -1 where it is set, in one instruction; so D is taken off
// twice where 2D - S is wanted. Several tokens: the bit becomes the byte 0 or 2.
#include "linear.h"

namespace tercet {
namespace neon {
namespace {

struct B1Tested {
    template <int R, int N>
    TERCET_INLINE void add(Sums<R, N>& d, const uint8_t* codes, int64_t stride, const int8_t* x, int64_t,
                           int32_t tiles) {
        static_assert(N == 1, "one token");
        Sums<R, N> negative;
        for (int r = 0; r < R; r++)
            for (int i = 0; i < QUARTERS; i++) negative[r][0][i] = vdupq_n_s32(0);
        for (int32_t c = 0; c < tiles; c++, codes += TILE_BYTES, x += B1::columns) {
            const int8x16_t quads[2] = {vld1q_s8(x), vld1q_s8(x + 16)};
#pragma GCC unroll 2
            for (int r = 0; r < R; r++) {
                prefetch(codes + r * stride);
#pragma GCC unroll 4
                for (int i = 0; i < QUARTERS; i++) {
                    const uint8x16_t rows = vld1q_u8(codes + r * stride + 16 * i);
                    for_slots<8>([&](auto slot) __attribute__((always_inline)) {
                        constexpr int s = decltype(slot)::value;
                        const int8x16_t bytes = vreinterpretq_s8_u8(vtstq_u8(rows, vdupq_n_u8((uint8_t)(1 << s))));
                        negative[r][0][i] = vdotq_laneq_s32(negative[r][0][i], bytes, quads[s / 4], s % 4);
                    });
                }
            }
        }
        for (int r = 0; r < R; r++)
            for (int i = 0; i < QUARTERS; i++) d[r][0][i] = vsubq_s32(d[r][0][i], vshlq_n_s32(negative[r][0][i], 1));
    }
};

} // namespace
} // namespace neon

TERCET_LINEAR(b1_linear_neon) {
    neon::linear<B1, neon::B1Tested, 2>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet
