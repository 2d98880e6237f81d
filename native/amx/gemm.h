// The packed product with many tokens on AMX tiles, one driver for all formats. A panel of two row tiles is unpacked a
// chunk of columns at a time to signed bytes, in the order a tile register wants weights, and meets all tokens while it
// is near. Activations are read where they are. The sums are exact, so that the floats made of them are those of every
// backend.
// No tails: where tokens do not fill the last block, or row tiles the last panel, it starts earlier and finds again
// what was found before. A block keeps its sums at slots of its own.
#ifndef TERCET_AMX_GEMM_H
#define TERCET_AMX_GEMM_H

#include "../avx512vnni/unpack.h"
#include "tiles.h"

namespace tercet::amx {

constexpr int PANEL = 2;           // row tiles
constexpr int CHUNK = 1024;        // columns unpacked at once of a wide group
constexpr int GROUPED_CHUNK = 512; // and of groups no wider than this
constexpr int LEAST_GROUP = 32;    // columns; narrower groups are avx512vnni's
constexpr int MOST_GROUPS = GROUPED_CHUNK / LEAST_GROUP;
constexpr int MOST_TOKENS = 256;   // tokens that share an unpacked panel
constexpr int GROUPED_TOKENS = 12; // of a block in multiply_groups: 2 x 12 accumulators in registers
constexpr int WIDE_TOKENS = 16;    // of a tile in multiply_columns and multiply_rows
constexpr int SLOTS = MOST_TOKENS + WIDE_TOKENS;

struct Panel {
    const tercet_matrix* w;
    const tercet_activations* x;
    int32_t tile;        // the first row tile
    int32_t width;       // of the matrix, in columns of whole tiles
    int32_t column, end; // the chunk
    int32_t group;       // of its first column, and
    int groups;          // how many it has a part of
    int step;            // columns of a tile of activations
    int32_t token;       // the first, and
    int tokens;          // how many
    int blocks, size;    // of tokens, and the tokens of each
    const float* bias;   // or NULL
    float* y;
    int64_t y_stride;
    alignas(64) int8_t weights[PANEL][CHUNK / 4][TILE_BYTES];
    alignas(64) float alpha[MOST_GROUPS][PANEL][TERCET_ROWS];
    alignas(64) float gamma[MOST_GROUPS][PANEL][TERCET_ROWS];
    alignas(64) int32_t sums[SLOTS][PANEL][TERCET_ROWS];
    alignas(64) float acc[SLOTS][PANEL][TERCET_ROWS];

    int32_t token_of(int block) const {
        const int32_t first = block * size;
        return token + (first < tokens - size ? first : tokens - size);
    }
};

// Whether the scale groups of w are narrow enough to lie in a chunk whole.
inline bool grouped(const tercet_matrix* w) { return w->group <= GROUPED_CHUNK; }

// Adds the products of the chunk, which holds whole groups, to p.acc.
void multiply_groups(Panel& p);

// Adds the products of the chunk, a part of one group, to p.sums; at the group's end those to p.acc.
void multiply_columns(Panel& p);

// The same where a row has one group: at its end the results go straight to y.
void multiply_rows(Panel& p);

void load_scales(Panel& p);
void store_panel(const Panel& p);

// The four columns 4s .. 4s+3 of a tile as the weights' integers.
template <class Format>
static inline __m512i unpack_signed(__m512i tile, int s) {
    if constexpr (Format::bits == 8) return tile;
    return _mm512_sub_epi8(avx512vnni::unpack<Format>(tile, s), _mm512_set1_epi8((char)Format::offset));
}

// Past the matrix's last column the panel keeps what it held: activations are 0 there.
template <class Format>
void unpack_chunk(Panel& p) {
    constexpr int steps = Format::columns / 4;
    const int32_t begin = p.column / Format::columns, count = (p.end - p.column) / Format::columns;
    for (int r = 0; r < PANEL; r++) {
        const uint8_t* codes =
            (const uint8_t*)p.w->codes + ((int64_t)(p.tile + r) * p.w->col_tiles + begin) * TILE_BYTES;
        for (int32_t c = 0; c < count; c++, codes += TILE_BYTES) {
            _mm_prefetch((const char*)codes + count * TILE_BYTES, _MM_HINT_T0); // the next chunk
            const __m512i tile = _mm512_loadu_si512(codes);
#pragma GCC unroll 8
            for (int s = 0; s < steps; s++)
                _mm512_store_si512(p.weights[r][c * steps + s], unpack_signed<Format>(tile, s));
        }
    }
}

template <class Format>
void multiply_panel(Panel& p) {
    if (p.w->groups > 1) memset(p.acc, 0, (size_t)(p.blocks * p.size) * sizeof p.acc[0]);
    for (p.column = 0; p.column < p.width; p.column = p.end) {
        const int32_t group_end = p.column - p.column % p.w->group + p.w->group;
        const int32_t end = p.w->groups > 1 && grouped(p.w)  ? p.column + GROUPED_CHUNK / p.w->group * p.w->group
                            : group_end - p.column < CHUNK ? group_end
                                                           : p.column + CHUNK;
        p.end = end < p.width ? end : p.width;
        p.group = p.column / p.w->group;
        p.groups = (p.end - p.column + p.w->group - 1) / p.w->group;
        unpack_chunk<Format>(p);
        load_scales(p);
        if (p.w->groups == 1) multiply_rows(p);
        else if (grouped(p.w)) multiply_groups(p);
        else multiply_columns(p);
    }
    if (p.w->groups > 1) store_panel(p);
}

// At least two row tiles; groups of a multiple of LEAST_GROUP columns, or one.
template <class Format>
TERCET_LINEAR(gemm) {
    Panel p;
    p.w = w;
    p.x = x;
    p.bias = bias;
    p.y = y;
    p.y_stride = y_stride;
    p.width = w->col_tiles * Format::columns;
    p.step = w->groups > 1 && w->group % 64 ? 32 : 64;
    const int32_t parts = (x->n + MOST_TOKENS - 1) / MOST_TOKENS, part = (x->n + parts - 1) / parts;
    const int most = w->groups > 1 && grouped(w) ? GROUPED_TOKENS : WIDE_TOKENS;
    for (p.token = 0; p.token < x->n; p.token += part) {
        p.tokens = x->n - p.token < part ? x->n - p.token : part;
        p.blocks = (p.tokens + most - 1) / most;
        p.size = (p.tokens + p.blocks - 1) / p.blocks;
        const Tiles tiles(p.size, p.step);
        for (int32_t tile = tile_begin; tile < tile_end; tile += PANEL) {
            p.tile = tile_end - tile < PANEL ? tile_end - PANEL : tile;
            multiply_panel<Format>(p);
        }
    }
}

} // namespace tercet::amx
#endif
