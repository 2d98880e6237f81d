// The packed product with many tokens, one driver for all formats. A row tile is unpacked a group (at most CHUNK
// columns of it) at a time to signed bytes that stay in L1, and meets blocks of 6 tokens: 4 x 6 accumulators, 6
// registers of 16 activations and one or two of weights fill the 32 registers.
// An accumulator starts at -offset*S, so that it ends as the product with the true weights; wider groups keep it in
// memory between chunks.
#ifndef TERCET_NEON_GEMM_H
#define TERCET_NEON_GEMM_H

#include "unpack.h"

namespace tercet::neon {

constexpr int BLOCK = 6;        // tokens of a micro-kernel
constexpr int MOST_TOKENS = 48; // tokens that share an unpacked panel; their sums stay in L1 with it
constexpr int CHUNK = 512;      // columns unpacked at once: 8 KB

struct Panel {
    const tercet_matrix* w;
    const tercet_activations* x;
    int32_t tile, group, column; // row tile; where the chunk lies
    int quads;                   // columns of the chunk / 4
    int offset;                  // of the format
    bool first, last;            // chunk of its group
    alignas(64) int8_t weights[CHUNK / 4][TILE_BYTES];
    alignas(64) int32_t partial[MOST_TOKENS][TERCET_ROWS];
    alignas(64) float acc[MOST_TOKENS][TERCET_ROWS];
};

// Adds the chunk's products for tokens token .. token+tokens (<= BLOCK) of x, kept at slot.. in partial and acc.
void multiply(Panel& p, int tokens, int32_t token, int slot);

void store_panel(const Panel& p, int tokens, int32_t token, const float* bias, float* y, int64_t y_stride);

template <class Format>
void unpack_chunk(Panel& p) {
    constexpr int steps = Format::columns / 4;
    const int32_t begin = p.column / Format::columns, count = p.quads / steps;
    const uint8_t* codes = (const uint8_t*)p.w->codes + ((int64_t)p.tile * p.w->col_tiles + begin) * TILE_BYTES;
    for (int32_t c = 0; c < count; c++, codes += TILE_BYTES)
        for (int i = 0; i < TILE_BYTES; i += 16) {
            const uint8x16_t rows = vld1q_u8(codes + i);
            for_slots<steps>([&](auto slot) __attribute__((always_inline)) {
                constexpr int s = decltype(slot)::value;
                vst1q_s8(p.weights[c * steps + s] + i, unpack<Format, s>(rows));
            });
        }
}

// One row tile with at most MOST_TOKENS tokens.
template <class Format>
void multiply_panel(Panel& p, int32_t token, int tokens) {
    memset(p.acc, 0, (size_t)tokens * sizeof p.acc[0]);
    const int32_t width = p.w->col_tiles * Format::columns;
    for (p.group = 0; p.group < p.w->groups; p.group++) {
        const int32_t begin = p.group * p.w->group;
        const int32_t end = width - begin < p.w->group ? width : begin + p.w->group;
        for (p.column = begin; p.column < end; p.column += CHUNK) {
            p.quads = (end - p.column < CHUNK ? end - p.column : CHUNK) / 4;
            p.first = p.column == begin;
            p.last = end - p.column <= CHUNK;
            unpack_chunk<Format>(p);
            for (int t = 0; t < tokens;) { // in blocks of about one size: 4 + 4 keeps the units busier than 6 + 2
                const int blocks = (tokens - t + BLOCK - 1) / BLOCK, size = (tokens - t + blocks - 1) / blocks;
                multiply(p, size, token + t, t);
                t += size;
            }
        }
    }
}

template <class Format>
TERCET_LINEAR(gemm) {
    Panel p;
    p.w = w;
    p.x = x;
    p.offset = OFFSET<Format>;
    for (int32_t token = 0; token < x->n; token += MOST_TOKENS) {
        const int tokens = x->n - token < MOST_TOKENS ? x->n - token : MOST_TOKENS;
        for (p.tile = tile_begin; p.tile < tile_end; p.tile++) {
            multiply_panel<Format>(p, token, tokens);
            store_panel(p, tokens, token, bias, y, y_stride);
        }
    }
}

} // namespace tercet::neon
#endif
