// The packed product with several tokens in AVX2, one driver for all formats: a row tile is two registers of eight rows each; its codes are
// unpacked once for N tokens.
//   unsigned formats: vpmaddubsw of bytes factor*(code ^ flip) with the activations gives int16 pair sums of at most
//     t2 2*3*127 = 762 (the invalid code 3 counted), b1 2*2*127 = 508, q4 2*15*127 = 3810: FLUSH tiles of them fit
//     int16 and are widened by vpmaddwd
//   q8: 255*127*2 would saturate, so |q| times the activation with q's sign, at most 2*128*127 = 32512, widened at once
#ifndef TERCET_AVX2_PRODUCT_H
#define TERCET_AVX2_PRODUCT_H

#include <immintrin.h>

#include "../backends.h"
#include "../f32x16_avx2.h"

namespace tercet::avx2 {

constexpr int BLOCK = 4; // tokens

// Tiles whose int16 sums fit: 8*4*762 = 24384, 8*8*508 = 32512, 4*2*3810 = 30480.
template <class Format>
constexpr int FLUSH = Format::bits == 4 ? 4 : 8;

// Bytes of the four columns 4s .. 4s+3 of half a tile.
template <class Format>
static inline __m256i unpack(__m256i half, int s) {
    if constexpr (Format::bits == 8) return half; // signed as they are
    constexpr int up = Format::factor == 2 ? 1 : 0;
    const __m256i mask = _mm256_set1_epi8((char)(Format::mask << up));
    const int right = Format::bits * s - up;
    return _mm256_and_si256(right < 0 ? _mm256_slli_epi32(half, 1) : _mm256_srli_epi32(half, right), mask);
}

static inline __m256i broadcast4(const int8_t* p) {
    int32_t quad;
    memcpy(&quad, p, 4);
    return _mm256_set1_epi32(quad);
}

static inline __m256i widen(__m256i words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }

// d[t][half] += `tiles` (<= FLUSH) column tiles times token t.
template <class Format, int N>
inline __attribute__((always_inline)) void add_tiles(__m256i (&d)[N][2], const uint8_t* codes, const int8_t* x,
                                                     int64_t stride, int tiles) {
    __m256i words[N][2];
    for (int t = 0; t < N; t++) words[t][0] = words[t][1] = _mm256_setzero_si256();
    for (int c = 0; c < tiles; c++, codes += TILE_BYTES, x += Format::columns) {
        const __m256i halves[2] = {_mm256_loadu_si256((const __m256i*)codes),
                                   _mm256_loadu_si256((const __m256i*)(codes + 32))};
#pragma GCC unroll 8
        for (int s = 0; s < Format::columns / 4; s++) {
            const __m256i w[2] = {unpack<Format>(halves[0], s), unpack<Format>(halves[1], s)};
#pragma GCC unroll 4
            for (int t = 0; t < N; t++) {
                const __m256i quad = broadcast4(x + t * stride + 4 * s);
                for (int h = 0; h < 2; h++) {
                    if constexpr (Format::bits == 8)
                        d[t][h] = _mm256_add_epi32(d[t][h], widen(_mm256_maddubs_epi16(_mm256_abs_epi8(w[h]),
                                                                                       _mm256_sign_epi8(quad, w[h]))));
                    else words[t][h] = _mm256_add_epi16(words[t][h], _mm256_maddubs_epi16(w[h], quad));
                }
            }
        }
    }
    if constexpr (Format::bits != 8)
        for (int t = 0; t < N; t++)
            for (int h = 0; h < 2; h++) d[t][h] = _mm256_add_epi32(d[t][h], widen(words[t][h]));
}

// What a group's products start from, so that they end as those with the true weights; q8 is multiplied signed.
template <class Format>
static inline __m256i start(int32_t sum) {
    return _mm256_set1_epi32(Format::bits == 8 ? 0 : -Format::offset * sum);
}

// acc = fma(sx*alpha, d, acc), with a shift acc = fma(sx*gamma, S, acc), for group g of a row tile.
static inline f32x16 scale_group(const tercet_matrix* w, int32_t tile, int32_t g, float sx, int32_t sum,
                                 const __m256i (&d)[2], f32x16 acc) {
    const int64_t at = ((int64_t)tile * w->groups + g) * TERCET_ROWS;
    const f32x16 scale = f32x16::set(sx);
    acc = fma(scale * f32x16::load(w->scale + at), f32x16{_mm256_cvtepi32_ps(d[0]), _mm256_cvtepi32_ps(d[1])}, acc);
    if (!w->shift) return acc;
    return fma(scale * f32x16::load(w->shift + at), f32x16::set((float)sum), acc);
}

static inline void store_rows(const tercet_matrix* w, int32_t tile, const float* bias, f32x16 acc, float* y) {
    const int32_t row = tile * TERCET_ROWS;
    const int lanes = w->rows - row < TERCET_ROWS ? w->rows - row : TERCET_ROWS;
    (bias ? acc + f32x16::load(bias + row, lanes) : acc).store(y + row, lanes);
}

// One row tile with tokens token .. token+N.
template <class Format, int N>
void row_tile(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int64_t y_stride,
              int32_t tile, int32_t token) {
    const uint8_t* codes = (const uint8_t*)w->codes + (int64_t)tile * w->col_tiles * TILE_BYTES;
    const int8_t* activations = x->codes + token * x->stride;
    const int32_t group_tiles = w->group / Format::columns;
    f32x16 acc[N];
    for (int t = 0; t < N; t++) acc[t] = f32x16::zero();
    for (int32_t g = 0; g < w->groups; g++) {
        const float* sx = x->scale + (int64_t)token * w->groups + g;
        const int32_t* sum = x->sum + (int64_t)token * w->groups + g;
        __m256i d[N][2];
        for (int t = 0; t < N; t++) d[t][0] = d[t][1] = start<Format>(sum[(int64_t)t * w->groups]);
        const int32_t begin = g * group_tiles;
        const int32_t end = w->col_tiles - begin < group_tiles ? w->col_tiles : begin + group_tiles;
        for (int32_t c = begin; c < end; c += FLUSH<Format>)
            add_tiles<Format, N>(d, codes + (int64_t)c * TILE_BYTES, activations + (int64_t)c * Format::columns,
                                 x->stride, end - c < FLUSH<Format> ? end - c : FLUSH<Format>);
        for (int t = 0; t < N; t++)
            acc[t] = scale_group(w, tile, g, sx[(int64_t)t * w->groups], sum[(int64_t)t * w->groups], d[t], acc[t]);
    }
    for (int t = 0; t < N; t++) store_rows(w, tile, bias, acc[t], y + (token + t) * y_stride);
}

template <class Format>
TERCET_LINEAR(tokens) {
    for (int32_t tile = tile_begin; tile < tile_end; tile++) {
        int32_t t = 0;
        for (; t + BLOCK <= x->n; t += BLOCK) row_tile<Format, BLOCK>(w, x, bias, y, y_stride, tile, t);
        for (; t < x->n; t++) row_tile<Format, 1>(w, x, bias, y, y_stride, tile, t);
    }
}

} // namespace tercet::avx2
#endif
