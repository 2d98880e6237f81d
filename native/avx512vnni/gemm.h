// The packed product with many tokens, one driver for all formats. A panel of two row tiles is unpacked at most CHUNK
// columns at a time to unsigned bytes that stay in L1, and meets blocks of up to 12 tokens: 2 x 12 sums, 2 weights and a
// broadcast of 4 activations fill the registers. A chunk is whole groups, or a part of one that keeps its sums in memory
// between chunks.
#ifndef TERCET_AVX512VNNI_GEMM_H
#define TERCET_AVX512VNNI_GEMM_H

#include "unpack.h"

namespace tercet::avx512vnni {

constexpr int PANEL = 2;        // row tiles
constexpr int BLOCK = 12;       // tokens of a micro-kernel
constexpr int MOST_TOKENS = 72; // tokens that share an unpacked panel; their sums stay in L1 with it
constexpr int CHUNK = 512;      // columns unpacked at once

struct Panel {
    const tercet_matrix* w;
    const tercet_activations* x;
    int32_t tile;        // first row tile
    int32_t tiles;       // 1 or 2
    int32_t group;       // the chunk's first
    int32_t column;      // the chunk's first
    int32_t quads;       // columns of the chunk / 4
    int32_t group_quads; // columns of a group / 4
    int offset;          // of the format
    bool first, last;    // the chunk begins its first group, ends its last
    alignas(64) uint8_t weights[CHUNK / 4 * PANEL * TILE_BYTES]; // [quads][tiles][64]
    alignas(64) int32_t partial[MOST_TOKENS * PANEL * TERCET_ROWS];
    alignas(64) float acc[MOST_TOKENS * PANEL * TERCET_ROWS]; // [tokens][tiles][16]
};

// Adds the chunk's products for tokens token .. token+tokens (<= BLOCK) of x, kept at slot.. in partial and acc.
void multiply(Panel& p, int tokens, int32_t token, int slot);

void store_panel(const Panel& p, int tokens, int32_t token, const float* bias, float* y, int64_t y_stride);

// The chunk with all tokens, in blocks of about equal size.
static inline void multiply_chunk(Panel& p, int32_t token, int tokens) {
    const int blocks = (tokens + BLOCK - 1) / BLOCK;
    for (int b = 0, t = 0; b < blocks; b++) {
        const int next = tokens * (b + 1) / blocks;
        multiply(p, next - t, token + t, t);
        t = next;
    }
}

template <class Format>
void unpack_chunk(Panel& p) {
    constexpr int steps = Format::columns / 4;
    const int32_t begin = p.column / Format::columns, count = p.quads / steps;
    for (int r = 0; r < p.tiles; r++) {
        const uint8_t* codes =
            (const uint8_t*)p.w->codes + ((int64_t)(p.tile + r) * p.w->col_tiles + begin) * TILE_BYTES;
        for (int32_t c = 0; c < count; c++) {
            const __m512i tile = _mm512_loadu_si512(codes + (int64_t)c * TILE_BYTES);
#pragma GCC unroll 8
            for (int s = 0; s < steps; s++)
                _mm512_store_si512(p.weights + ((c * steps + s) * p.tiles + r) * TILE_BYTES, unpack<Format>(tile, s));
        }
    }
}

// One panel with at most MOST_TOKENS tokens.
template <class Format>
void multiply_panel(Panel& p, int32_t token, int tokens) {
    memset(p.acc, 0, (size_t)(tokens * p.tiles * TERCET_ROWS) * sizeof(float));
    const int32_t width = p.w->col_tiles * Format::columns, group = p.w->group;
    const int32_t chunk = group > CHUNK ? CHUNK : CHUNK / group * group;
    p.group_quads = group / 4;
    for (p.column = 0; p.column < width; p.column += 4 * p.quads) {
        p.group = p.column / group;
        const int32_t end = group > CHUNK && width > (p.group + 1) * group ? (p.group + 1) * group : width;
        p.quads = (end - p.column < chunk ? end - p.column : chunk) / 4;
        p.first = p.column % group == 0;
        p.last = group <= CHUNK || p.column + 4 * p.quads == end;
        unpack_chunk<Format>(p);
        multiply_chunk(p, token, tokens);
    }
}

template <class Format, void (*MultiplyPanel)(Panel&, int32_t, int) = multiply_panel<Format>>
TERCET_LINEAR(gemm) {
    Panel p;
    p.w = w;
    p.x = x;
    p.offset = Format::offset;
    for (int32_t token = 0; token < x->n; token += MOST_TOKENS) {
        const int tokens = x->n - token < MOST_TOKENS ? x->n - token : MOST_TOKENS;
        for (p.tile = tile_begin; p.tile < tile_end; p.tile += PANEL) {
            p.tiles = tile_end - p.tile < PANEL ? 1 : PANEL;
            MultiplyPanel(p, token, tokens);
            store_panel(p, tokens, token, bias, y, y_stride);
        }
    }
}

} // namespace tercet::avx512vnni
#endif
