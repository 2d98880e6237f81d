// Nibbles q + 8; 8*S is taken off.
#include "gemm.h"
#include "gemv.h"

namespace tercet {
namespace avx512vnni {
namespace {

template <int R>
struct Q4Products {
    static inline void add(__m512i (&d)[R], const uint8_t* codes, int64_t stride, const int8_t* x, int32_t tiles) {
        for (int32_t c = 0; c < tiles; c++, codes += TILE_BYTES, x += Q4::columns) {
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const uint8_t* p = codes + r * stride;
                _mm_prefetch((const char*)p + PREFETCH, _MM_HINT_T0);
                const __m512i tile = _mm512_loadu_si512(p);
#pragma GCC unroll 8
                for (int s = 0; s < Q4::columns / 4; s++)
                    d[r] = _mm512_dpbusd_epi32(d[r], unpack<Q4>(tile, s), broadcast4(x + 4 * s));
            }
        }
    }
};

} // namespace
} // namespace avx512vnni

TERCET_LINEAR(q4_linear_avx512vnni) {
    if (x->n != 1) return avx512vnni::gemm<Q4>(w, x, bias, y, y_stride, tile_begin, tile_end);
    avx512vnni::gemv<Q4, avx512vnni::Q4Products>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet
