// Two-bit ternary weights. One token: no shift of the weights. AND with 03, 0C, 30, C0 leaves each code times 1, 4, 16
// or 64; four accumulators of these weights are shifted back once a group.
#include "linear.h"

namespace tercet {
namespace avx512vnni {
namespace {

// The accumulator of weight 64 grows by at most 4*192*127 a tile: flushed long before it overflows.
constexpr int32_t FLUSH = 16384;

template <int R>
struct T2Products {
    static TERCET_INLINE void add_some(__m512i (&d)[R], const uint8_t* codes, int64_t stride, const int8_t* x,
                                       int32_t tiles, int64_t ahead) {
        const __m512i mask[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                                 _mm512_set1_epi8((char)0xc0)};
        __m512i sums[R][4];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            sums[r][0] = d[r];
            sums[r][1] = sums[r][2] = sums[r][3] = _mm512_setzero_si512();
        }
        for (int32_t c = 0; c < tiles; c++, codes += TILE_BYTES, x += T2::columns) {
            __m512i quads[4];
#pragma GCC unroll 4
            for (int s = 0; s < 4; s++) quads[s] = broadcast4(x + 4 * s);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const uint8_t* p = codes + r * stride;
                _mm_prefetch((const char*)p + ahead, _MM_HINT_T0);
                const __m512i tile = _mm512_loadu_si512(p);
#pragma GCC unroll 4
                for (int s = 0; s < 4; s++)
                    sums[r][s] = _mm512_dpbusd_epi32(sums[r][s], _mm512_and_si512(tile, mask[s]), quads[s]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const __m512i low = _mm512_add_epi32(sums[r][0], _mm512_srai_epi32(sums[r][1], 2));
            const __m512i high = _mm512_add_epi32(sums[r][2], _mm512_srai_epi32(sums[r][3], 2));
            d[r] = _mm512_add_epi32(low, _mm512_srai_epi32(high, 4));
        }
    }

    static TERCET_INLINE void add(__m512i (&d)[R], const uint8_t* codes, int64_t stride, const int8_t* x, int32_t tiles,
                                  int64_t ahead) {
        for (int32_t c = 0; c < tiles; c += FLUSH)
            add_some(d, codes + (int64_t)c * TILE_BYTES, stride, x + (int64_t)c * T2::columns,
                     tiles - c < FLUSH ? tiles - c : FLUSH, ahead);
    }
};

} // namespace
} // namespace avx512vnni

TERCET_LINEAR(t2_linear_avx512vnni) {
    avx512vnni::linear<T2, avx512vnni::T2Products>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet
