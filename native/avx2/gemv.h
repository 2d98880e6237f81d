// The packed product with one token: R row tiles take turns of a few column tiles each, which makes R streams from
// memory while one turn's sums fill the registers.
#ifndef TERCET_AVX2_GEMV_H
#define TERCET_AVX2_GEMV_H

#include "product.h"

namespace tercet::avx2 {

// How far ahead codes are prefetched, in the order of reading: at a row tile's end from the start of the R-th next.
// Past the end of the weights it is harmless.
constexpr int AHEAD = 2048; // bytes

// Column tiles of a turn. Two-bit codes under the mask 0C are four times as large: their int16 sums hold
// 4 tiles * 2 * 4*762 = 24384, the invalid code 3 counted.
template <class Format>
constexpr int TURN = Format::bits == 2 ? 4 : FLUSH<Format>;

// d += `tiles` (<= TURN) column tiles. Two-bit codes: one shift a tile, for the masks 03 and 0C leave them times 1 and 4.
template <class Format>
inline __attribute__((always_inline)) void add_turn(__m256i (&d)[1][2], const uint8_t* codes, const int8_t* x,
                                                    int tiles, int64_t ahead) {
    for (int c = 0; c < tiles; c++) _mm_prefetch((const char*)codes + c * TILE_BYTES + ahead, _MM_HINT_T0);
    if constexpr (Format::bits == 2) {
        const __m256i low = _mm256_set1_epi8(0x03), high = _mm256_set1_epi8(0x0c);
        __m256i ones[2], fours[2];
        for (int h = 0; h < 2; h++) ones[h] = fours[h] = _mm256_setzero_si256();
        for (int c = 0; c < tiles; c++, codes += TILE_BYTES, x += Format::columns) {
            __m256i quads[4];
            for (int s = 0; s < 4; s++) quads[s] = broadcast4(x + 4 * s);
            for (int h = 0; h < 2; h++) {
                const __m256i w = _mm256_loadu_si256((const __m256i*)(codes + 32 * h)), v = _mm256_srli_epi32(w, 4);
                const __m256i one = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(w, low), quads[0]),
                                                     _mm256_maddubs_epi16(_mm256_and_si256(v, low), quads[2]));
                const __m256i four = _mm256_add_epi16(_mm256_maddubs_epi16(_mm256_and_si256(w, high), quads[1]),
                                                      _mm256_maddubs_epi16(_mm256_and_si256(v, high), quads[3]));
                ones[h] = _mm256_add_epi16(ones[h], one);
                fours[h] = _mm256_add_epi16(fours[h], four);
            }
        }
        for (int h = 0; h < 2; h++) // a pair of fours is a multiple of 4, and so is their sum
            d[0][h] = _mm256_add_epi32(d[0][h], _mm256_add_epi32(widen(ones[h]), _mm256_srai_epi32(widen(fours[h]), 2)));
    } else {
        add_tiles<Format, 1>(d, codes, x, 0, tiles);
    }
}

template <class Format, int R>
void gemv_rows(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int32_t tile) {
    const int64_t stride = (int64_t)w->col_tiles * TILE_BYTES;
    const uint8_t* codes = (const uint8_t*)w->codes + tile * stride;
    const int32_t group_tiles = w->group / Format::columns, edge = w->col_tiles - AHEAD / TILE_BYTES;
    f32x16 acc[R];
    for (int r = 0; r < R; r++) acc[r] = f32x16::zero();
    for (int32_t g = 0; g < w->groups; g++) {
        const int32_t begin = g * group_tiles;
        const int32_t end = w->col_tiles - begin < group_tiles ? w->col_tiles : begin + group_tiles;
        __m256i d[R][1][2];
        for (int r = 0; r < R; r++) d[r][0][0] = d[r][0][1] = start<Format>(x->sum[g]);
        for (int32_t c = begin; c < end; c += TURN<Format>) {
            const int64_t ahead = c < edge ? AHEAD : AHEAD + (R - 1) * stride;
            const uint8_t* p = codes + (int64_t)c * TILE_BYTES;
            for (int r = 0; r < R; r++, p += stride)
                if (end - c >= TURN<Format>)
                    add_turn<Format>(d[r], p, x->codes + (int64_t)c * Format::columns, TURN<Format>, ahead);
                else add_turn<Format>(d[r], p, x->codes + (int64_t)c * Format::columns, end - c, ahead);
        }
        for (int r = 0; r < R; r++) acc[r] = scale_group(w, tile + r, g, x->scale[g], x->sum[g], d[r][0], acc[r]);
    }
    for (int r = 0; r < R; r++) store_rows(w, tile + r, bias, acc[r], y);
}

template <class Format>
void gemv(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int32_t tile_begin,
          int32_t tile_end) {
    int32_t tile = tile_begin;
    for (; tile + 4 <= tile_end; tile += 4) gemv_rows<Format, 4>(w, x, bias, y, tile);
    for (; tile < tile_end; tile++) gemv_rows<Format, 1>(w, x, bias, y, tile);
}

// Which product a number of tokens takes.
template <class Format>
TERCET_LINEAR(linear) {
    if (x->n == 1) gemv<Format>(w, x, bias, y, tile_begin, tile_end);
    else tokens<Format>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet::avx2
#endif
