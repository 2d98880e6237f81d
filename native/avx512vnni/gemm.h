// The packed product with several tokens, one driver for all formats. A panel of two row tiles is unpacked a group (at
// most CHUNK columns of it) at a time to unsigned bytes that stay in L1, and meets blocks of 12 tokens:
// 2 x 12 accumulators, 2 weights and a broadcast of 4 activations fill the registers.
// An accumulator starts at -offset*S, so that it ends as the product with the true weights; wider groups keep it in
// memory between chunks.
#ifndef TERCET_AVX512VNNI_GEMM_H
#define TERCET_AVX512VNNI_GEMM_H

#include "unpack.h"

namespace tercet::avx512vnni {

constexpr int PANEL = 2;         // row tiles
constexpr int BLOCK = 12;        // tokens of a micro-kernel
constexpr int MOST_TOKENS = 72;  // tokens that share an unpacked panel; their sums stay in L1 with it
constexpr int CHUNK = 512;       // columns unpacked at once

struct Panel {
    const tercet_matrix* w;
    const tercet_activations* x;
    int32_t tile, group, column; // first row tile; where the chunk lies
    int quads;                   // columns of the chunk / 4
    int offset;                  // of the format
    bool first, last;            // chunk of its group
    alignas(64) uint8_t weights[CHUNK / 4][PANEL][TILE_BYTES];
    alignas(64) int32_t partial[MOST_TOKENS][PANEL][TERCET_ROWS];
    alignas(64) float acc[MOST_TOKENS][PANEL][TERCET_ROWS];
};

// Adds the chunk's products for tokens token .. token+tokens (<= BLOCK) of x, kept at slot.. in partial and acc.
void multiply(Panel& p, int tiles, int tokens, int32_t token, int slot);

template <class Format>
void unpack_chunk(Panel& p, int tiles) {
    constexpr int steps = Format::columns / 4;
    const int32_t begin = p.column / Format::columns, count = p.quads / steps;
    for (int r = 0; r < tiles; r++) {
        const uint8_t* codes =
            (const uint8_t*)p.w->codes + ((int64_t)(p.tile + r) * p.w->col_tiles + begin) * TILE_BYTES;
        for (int32_t c = 0; c < count; c++) {
            const __m512i tile = _mm512_loadu_si512(codes + (int64_t)c * TILE_BYTES);
#pragma GCC unroll 8
            for (int s = 0; s < steps; s++)
                _mm512_store_si512(p.weights[c * steps + s][r], unpack<Format>(tile, s));
        }
    }
}

void store_panel(const Panel& p, int tiles, int tokens, int32_t token, const float* bias, float* y, int64_t y_stride);

// One panel with at most MOST_TOKENS tokens.
template <class Format>
void multiply_panel(Panel& p, int tiles, int32_t token, int tokens) {
    memset(p.acc, 0, (size_t)tokens * sizeof p.acc[0]);
    const int32_t width = p.w->col_tiles * Format::columns;
    for (p.group = 0; p.group < p.w->groups; p.group++) {
        const int32_t begin = p.group * p.w->group;
        const int32_t end = width - begin < p.w->group ? width : begin + p.w->group;
        for (p.column = begin; p.column < end; p.column += CHUNK) {
            p.quads = (end - p.column < CHUNK ? end - p.column : CHUNK) / 4;
            p.first = p.column == begin;
            p.last = p.column + CHUNK >= end;
            unpack_chunk<Format>(p, tiles);
            for (int t = 0; t < tokens; t += BLOCK)
                multiply(p, tiles, tokens - t < BLOCK ? tokens - t : BLOCK, token + t, t);
        }
    }
}

template <class Format>
TERCET_LINEAR(gemm) {
    Panel p;
    p.w = w;
    p.x = x;
    p.offset = Format::offset;
    for (int32_t token = 0; token < x->n; token += MOST_TOKENS) {
        const int tokens = x->n - token < MOST_TOKENS ? x->n - token : MOST_TOKENS;
        for (p.tile = tile_begin; p.tile < tile_end; p.tile += PANEL) {
            const int tiles = tile_end - p.tile < PANEL ? 1 : PANEL;
            multiply_panel<Format>(p, tiles, token, tokens);
            store_panel(p, tiles, tokens, token, bias, y, y_stride);
        }
    }
}

} // namespace tercet::avx512vnni
#endif
