// Binary weights: a bit becomes the byte 0 or 2, from which 1 is taken as S.
#include "gemm.h"
#include "gemv.h"

namespace tercet {
namespace avx512vnni {
namespace {

template <int R>
struct B1Products {
    static inline void add(__m512i (&d)[R], const uint8_t* codes, int64_t stride, const int8_t* x, int32_t tiles) {
        for (int32_t c = 0; c < tiles; c++, codes += TILE_BYTES, x += B1::columns) {
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const uint8_t* p = codes + r * stride;
                _mm_prefetch((const char*)p + PREFETCH, _MM_HINT_T0);
                const __m512i tile = _mm512_loadu_si512(p);
#pragma GCC unroll 8
                for (int s = 0; s < B1::columns / 4; s++)
                    d[r] = _mm512_dpbusd_epi32(d[r], unpack<B1>(tile, s), broadcast4(x + 4 * s));
            }
        }
    }
};

} // namespace
} // namespace avx512vnni

TERCET_LINEAR(b1_linear_avx512vnni) {
    if (x->n != 1) return avx512vnni::gemm<B1>(w, x, bias, y, y_stride, tile_begin, tile_end);
    avx512vnni::gemv<B1, avx512vnni::B1Products>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet
