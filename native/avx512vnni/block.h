// The heart of the product with several tokens: R row tiles of unsigned weights times N tokens of signed activations in
// R*N registers. A sum starts at -offset*S, so that it ends as the product with the true weights.
#ifndef TERCET_AVX512VNNI_BLOCK_H
#define TERCET_AVX512VNNI_BLOCK_H

#include "unpack.h"

namespace tercet::avx512vnni {

static inline __m512 load_scales(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }

template <int R, int N>
TERCET_INLINE void start_group(__m512i (&sums)[N][R], const tercet_activations* x, int32_t groups, int offset,
                               int32_t token, int32_t group) {
    const int32_t* sum = x->sum + (int64_t)token * groups + group;
#pragma GCC unroll 12
    for (int t = 0; t < N; t++) {
        const __m512i start = _mm512_set1_epi32(-offset * sum[(int64_t)t * groups]);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) sums[t][r] = start;
    }
}

// sums += the products of `count` steps of 4*Weights::steps columns; x is the first token's first column.
template <int R, int N, class Weights>
TERCET_INLINE void add_products(__m512i (&sums)[N][R], const Weights& weights, const int8_t* x, int64_t stride,
                                int32_t begin, int32_t end) {
    const int8_t *x0 = x + (int64_t)begin * 4 * Weights::steps, *x3 = x0 + 3 * stride, *x6 = x0 + 6 * stride,
                 *x9 = x0 + 9 * stride; // an address is one of these plus 0, 1 or 2 strides
    for (int32_t c = begin; c < end; c++) {
        __m512i tiles[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) tiles[r] = weights.load(c, r);
#pragma GCC unroll 8
        for (int s = 0; s < Weights::steps; s++) {
            __m512i bytes[R];
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) bytes[r] = Weights::bytes(tiles[r], s);
#pragma GCC unroll 12
            for (int t = 0; t < N; t++) {
                const __m512i quad = broadcast4((t < 3 ? x0 : t < 6 ? x3 : t < 9 ? x6 : x9) + t % 3 * stride + 4 * s);
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], bytes[r], quad);
            }
        }
        x0 += 4 * Weights::steps;
        x3 += 4 * Weights::steps;
        x6 += 4 * Weights::steps;
        x9 += 4 * Weights::steps;
    }
}

// Integer products become floats: acc = fma(sx*alpha, D, acc), with a shift acc = fma(sx*gamma, S, acc). acc is f32[N][R][16].
template <int R, int N>
TERCET_INLINE void scale_group(const __m512i (&sums)[N][R], const tercet_matrix* w, const tercet_activations* x,
                               int32_t tile, int32_t token, int32_t group, float* acc) {
    const int64_t at = ((int64_t)tile * w->groups + group) * TERCET_ROWS, next = (int64_t)w->groups * TERCET_ROWS;
    const int64_t first = (int64_t)token * w->groups + group;
    __m512 alpha[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) alpha[r] = load_scales(w->scale + at + r * next);
#pragma GCC unroll 12
    for (int t = 0; t < N; t++) {
        const __m512 sx = _mm512_set1_ps(x->scale[first + (int64_t)t * w->groups]);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            float* a = acc + (t * R + r) * TERCET_ROWS;
            const __m512 d = _mm512_cvtepi32_ps(sums[t][r]);
            _mm512_store_ps(a, _mm512_fmadd_ps(_mm512_mul_ps(sx, alpha[r]), d, _mm512_load_ps(a)));
        }
    }
    if (!w->shift) return;
    for (int r = 0; r < R; r++) {
        const __m512 gamma = load_scales(w->shift + at + r * next);
        for (int t = 0; t < N; t++) {
            const int64_t token_at = first + (int64_t)t * w->groups;
            const __m512 sx = _mm512_set1_ps(x->scale[token_at]), s = _mm512_set1_ps((float)x->sum[token_at]);
            float* a = acc + (t * R + r) * TERCET_ROWS;
            _mm512_store_ps(a, _mm512_fmadd_ps(_mm512_mul_ps(sx, gamma), s, _mm512_load_ps(a)));
        }
    }
}

// y = acc + bias for one row tile of one token.
static inline void store_tile(const tercet_matrix* w, int32_t tile, const float* bias, const float* acc, float* y) {
    const int32_t row = tile * TERCET_ROWS;
    const int lanes = w->rows - row < TERCET_ROWS ? w->rows - row : TERCET_ROWS;
    const __mmask16 mask = (__mmask16)(0xffff >> (TERCET_ROWS - lanes));
    __m512 v = _mm512_load_ps(acc);
    if (bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + row));
    _mm512_mask_storeu_ps(y + row, mask, v);
}

} // namespace tercet::avx512vnni
#endif
