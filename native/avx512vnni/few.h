// The packed product with 2 to 12 tokens: weights are unpacked in registers and meet all tokens at once, so that they
// are read from memory once and stored nowhere. Four row tiles at once where their sums fit the registers, else two.
#ifndef TERCET_AVX512VNNI_FEW_H
#define TERCET_AVX512VNNI_FEW_H

#include "block.h"
#include "gemv.h"

namespace tercet::avx512vnni {

constexpr int MOST_FEW = 12; // tokens

template <class Format>
struct Streams {
    static constexpr int steps = Format::columns / 4;
    const uint8_t* codes;
    int64_t stride, jump; // from one of the R row tiles to the next; to the next R
    int32_t edge;         // from this tile on the prefetch is in the next rows
    inline __m512i load(int32_t c, int r) const {
        const uint8_t* p = codes + r * stride + (int64_t)c * TILE_BYTES;
        const int64_t over = (int64_t)(edge - 1 - c) >> 63; // a mask, or the compiler makes two loops that spill
        _mm_prefetch((const char*)p + AHEAD + (over & jump), _MM_HINT_T0);
        return _mm512_loadu_si512(p);
    }
    static inline __m512i bytes(__m512i tile, int s) { return unpack<Format>(tile, s); }
};

template <class Format, int R, int N>
void few_rows(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int64_t y_stride,
              int32_t tile) {
    const int64_t stride = (int64_t)w->col_tiles * TILE_BYTES;
    const uint8_t* codes = (const uint8_t*)w->codes + tile * stride;
    const Streams<Format> streams{codes, stride, (R - 1) * stride, w->col_tiles - AHEAD / TILE_BYTES};
    const int32_t group_tiles = w->group / Format::columns;
    alignas(64) float memory[N * R * TERCET_ROWS] = {};
    float* acc = memory;
    __asm__("" : "+r"(acc) : : "memory"); // kept out of registers: the sums need them
    for (int32_t g = 0; g < w->groups; g++) {
        const int32_t begin = g * group_tiles;
        const int32_t end = w->col_tiles - begin < group_tiles ? w->col_tiles : begin + group_tiles;
        __m512i sums[N][R];
        start_group<R, N>(sums, x, w->groups, Format::offset, 0, g);
        add_products<R, N>(sums, streams, x->codes, x->stride, begin, end);
        scale_group<R, N>(sums, w, x, tile, 0, g, acc);
    }
    for (int t = 0; t < N; t++)
        for (int r = 0; r < R; r++) store_tile(w, tile + r, bias, acc + (t * R + r) * TERCET_ROWS, y + t * y_stride);
}

template <class Format, int N>
TERCET_LINEAR(few_tokens) {
    constexpr int R = N <= 4 ? 4 : 2;
    int32_t tile = tile_begin;
    for (; tile + R <= tile_end; tile += R) few_rows<Format, R, N>(w, x, bias, y, y_stride, tile);
    for (; tile < tile_end; tile++) few_rows<Format, 1, N>(w, x, bias, y, y_stride, tile);
}

// x->n is 2 .. MOST_FEW.
template <class Format>
TERCET_LINEAR(few) {
    using Tokens = void (*)(const tercet_matrix*, const tercet_activations*, const float*, float*, int64_t, int32_t,
                            int32_t);
    static constexpr Tokens by_n[MOST_FEW + 1] = {
        nullptr,               nullptr,               few_tokens<Format, 2>,  few_tokens<Format, 3>,
        few_tokens<Format, 4>, few_tokens<Format, 5>, few_tokens<Format, 6>,  few_tokens<Format, 7>,
        few_tokens<Format, 8>, few_tokens<Format, 9>, few_tokens<Format, 10>, few_tokens<Format, 11>,
        few_tokens<Format, 12>};
    by_n[x->n](w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet::avx512vnni
#endif
