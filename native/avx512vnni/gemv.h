// The packed product with one token: what its formats share. R row tiles at once are R streams from memory.
#ifndef TERCET_AVX512VNNI_GEMV_H
#define TERCET_AVX512VNNI_GEMV_H

#include "../f32x16_avx512.h"
#include "unpack.h"

namespace tercet::avx512vnni {

// How far ahead weights are prefetched, in the order of reading: at a row tile's end from the start of the R-th next.
// Past the end of the weights it is harmless.
constexpr int AHEAD = 2048;       // bytes of codes
constexpr int SCALES_AHEAD = 256; // bytes of scales

// acc = fma(sx*alpha, d, acc), with a shift acc = fma(sx*gamma, S, acc), for group g of a row tile.
static inline __m512 scale_group(const tercet_matrix* w, const tercet_activations* x, int32_t tile, int32_t g,
                                 __m512i d, __m512 acc) {
    const int64_t at = ((int64_t)tile * w->groups + g) * TERCET_ROWS;
    const __m512 sx = _mm512_set1_ps(x->scale[g]);
    _mm_prefetch((const char*)(w->scale + at) + SCALES_AHEAD, _MM_HINT_T0);
    const __m512 alpha = f32x16::load(w->scale + at).v;
    acc = _mm512_fmadd_ps(_mm512_mul_ps(sx, alpha), _mm512_cvtepi32_ps(d), acc);
    if (!w->shift) return acc;
    const __m512 gamma = f32x16::load(w->shift + at).v;
    return _mm512_fmadd_ps(_mm512_mul_ps(sx, gamma), _mm512_set1_ps((float)x->sum[g]), acc);
}

static inline void store_rows(const tercet_matrix* w, int32_t tile, const float* bias, __m512 acc, float* y) {
    const int32_t row = tile * TERCET_ROWS;
    const int lanes = w->rows - row < TERCET_ROWS ? w->rows - row : TERCET_ROWS;
    const f32x16 v{acc};
    (bias ? v + f32x16::load(bias + row, lanes) : v).store(y + row, lanes);
}

// R row tiles from `tile` on. Products<R>::add(d, codes, stride, x, tiles, ahead) adds `tiles` column tiles of R streams,
// `stride` bytes apart, to d, and prefetches the codes `ahead` bytes on.
template <class Format, template <int> class Products, int R>
void gemv_rows(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int32_t tile) {
    const int64_t stride = (int64_t)w->col_tiles * TILE_BYTES;
    const uint8_t* codes = (const uint8_t*)w->codes + tile * stride;
    const int32_t group_tiles = w->group / Format::columns;
    __m512 acc[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_ps();
    for (int32_t g = 0; g < w->groups; g++) {
        const int32_t begin = g * group_tiles;
        const int32_t count = w->col_tiles - begin < group_tiles ? w->col_tiles - begin : group_tiles;
        __m512i d[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) d[r] = _mm512_set1_epi32(-Format::offset * x->sum[g]);
        const int32_t edge = w->col_tiles - AHEAD / TILE_BYTES; // from this tile on the prefetch is in the next rows
        const int32_t here = edge <= begin ? 0 : edge - begin < count ? edge - begin : count;
        const auto add = [&](int32_t from, int32_t tiles, int64_t ahead) __attribute__((always_inline)) {
            Products<R>::add(d, codes + (int64_t)from * TILE_BYTES, stride, x->codes + (int64_t)from * Format::columns,
                             tiles, ahead);
        };
        if (here) add(begin, here, AHEAD);
        if (here < count) add(begin + here, count - here, AHEAD + (R - 1) * stride);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) acc[r] = scale_group(w, x, tile + r, g, d[r], acc[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) store_rows(w, tile + r, bias, acc[r], y);
}

template <class Format, template <int> class Products>
void gemv(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int32_t tile_begin,
          int32_t tile_end) {
    int32_t tile = tile_begin;
    for (; tile + 4 <= tile_end; tile += 4) gemv_rows<Format, Products, 4>(w, x, bias, y, tile);
    for (; tile < tile_end; tile++) gemv_rows<Format, Products, 1>(w, x, bias, y, tile);
}

// Products of unpacked bytes, for every format that has no better way.
template <class Format>
struct Unpacked {
    template <int R>
    struct Products {
        static TERCET_INLINE void add(__m512i (&d)[R], const uint8_t* codes, int64_t stride, const int8_t* x,
                                      int32_t tiles, int64_t ahead) {
            for (int32_t c = 0; c < tiles; c++, codes += TILE_BYTES, x += Format::columns) {
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    const uint8_t* p = codes + r * stride;
                    _mm_prefetch((const char*)p + ahead, _MM_HINT_T0);
                    const __m512i tile = _mm512_loadu_si512(p);
#pragma GCC unroll 8
                    for (int s = 0; s < Format::columns / 4; s++)
                        d[r] = _mm512_dpbusd_epi32(d[r], unpack<Format>(tile, s), broadcast4(x + 4 * s));
                }
            }
        }
    };
};

} // namespace tercet::avx512vnni
#endif
