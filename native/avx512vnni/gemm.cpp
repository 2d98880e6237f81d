// The micro-kernel of gemm.h for every size of a block.
#include "gemm.h"

#include "block.h"

namespace tercet::avx512vnni {
namespace {

template <int R>
struct Bytes {
    static constexpr int steps = 1;
    const uint8_t* weights; // [quads][R][64]
    inline __m512i load(int32_t q, int r) const {
        return _mm512_load_si512(weights + ((int64_t)q * R + r) * TILE_BYTES);
    }
    static inline __m512i bytes(__m512i quad, int) { return quad; }
};

template <int R, int N>
void block(Panel& p, int32_t token, int slot) {
    const Bytes<R> weights{p.weights};
    const int8_t* x = p.x->codes + token * p.x->stride + p.column;
    int32_t* partial = p.partial + slot * R * TERCET_ROWS;
    for (int32_t q = 0, g = p.group; q < p.quads; q += p.group_quads, g++) {
        const int32_t end = p.quads - q < p.group_quads ? p.quads : q + p.group_quads;
        __m512i sums[N][R];
        if (p.first) {
            start_group<R, N>(sums, p.x, p.w->groups, p.offset, token, g);
        } else {
#pragma GCC unroll 12
            for (int t = 0; t < N; t++)
#pragma GCC unroll 2
                for (int r = 0; r < R; r++) sums[t][r] = _mm512_load_si512(partial + (t * R + r) * TERCET_ROWS);
        }
        add_products<R, N>(sums, weights, x, p.x->stride, q, end);
        if (p.last) {
            scale_group<R, N>(sums, p.w, p.x, p.tile, token, g, p.acc + slot * R * TERCET_ROWS);
        } else {
#pragma GCC unroll 12
            for (int t = 0; t < N; t++)
#pragma GCC unroll 2
                for (int r = 0; r < R; r++) _mm512_store_si512(partial + (t * R + r) * TERCET_ROWS, sums[t][r]);
        }
    }
}

using Block = void (*)(Panel&, int32_t, int);
template <int R>
constexpr Block blocks[BLOCK] = {block<R, 1>, block<R, 2>, block<R, 3>, block<R, 4>,  block<R, 5>,  block<R, 6>,
                                 block<R, 7>, block<R, 8>, block<R, 9>, block<R, 10>, block<R, 11>, block<R, 12>};

} // namespace

void multiply(Panel& p, int tokens, int32_t token, int slot) {
    (p.tiles == 2 ? blocks<2> : blocks<1>)[tokens - 1](p, token, slot);
}

void store_panel(const Panel& p, int tokens, int32_t token, const float* bias, float* y, int64_t y_stride) {
    for (int t = 0; t < tokens; t++)
        for (int r = 0; r < p.tiles; r++)
            store_tile(p.w, p.tile + r, bias, p.acc + (t * p.tiles + r) * TERCET_ROWS, y + (token + t) * y_stride);
}

} // namespace tercet::avx512vnni
