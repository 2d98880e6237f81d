// The micro-kernels of gemm.h.
#include "gemm.h"

#include "../f32x16_avx512.h"

namespace tercet::amx {
namespace {

using avx512vnni::f32x16;

alignas(64) constexpr int32_t ZEROS[16][TERCET_ROWS] = {};

// Adds `steps` tiles of activations from x on, times both row tiles' weights from row `first` on, to registers Sum and
// Sum+1, and with A = 2 those `second` bytes further to Sum+2 and Sum+3.
template <int Sum, int A>
inline __attribute__((always_inline)) void add_products(const Panel& p, const int8_t* x, int64_t second, int first,
                                                        int steps) {
    for (int i = 0; i < steps; i++, x += p.step, first += p.step / 4) {
        load_tile<6>(p.weights[0][first], TILE_BYTES);
        load_tile<4>(x, p.x->stride);
        multiply_tiles<Sum, 4, 6>();
        load_tile<7>(p.weights[1][first], TILE_BYTES);
        multiply_tiles<Sum + 1, 4, 7>();
        if constexpr (A == 2) {
            load_tile<5>(x + second, p.x->stride);
            multiply_tiles<Sum + 2, 5, 6>();
            multiply_tiles<Sum + 3, 5, 7>();
        }
    }
}

// acc = fma(sx*alpha, D, acc), with a shift acc = fma(sx*gamma, S, acc), for N tokens of group g, the chunk's at-th.
template <int N>
inline __attribute__((always_inline)) void scale_group(const Panel& p, const int32_t (*sums)[PANEL][TERCET_ROWS],
                                                       int32_t token, int32_t g, int at, __m512 (&acc)[N][PANEL]) {
    const float* scale = p.x->scale + (int64_t)token * p.w->groups + g;
    const __m512 alpha[PANEL] = {_mm512_load_ps(p.alpha[at][0]), _mm512_load_ps(p.alpha[at][1])};
#pragma GCC unroll 16
    for (int t = 0; t < N; t++, scale += p.w->groups) {
        const __m512 sx = _mm512_set1_ps(*scale);
#pragma GCC unroll 2
        for (int r = 0; r < PANEL; r++) {
            const __m512 d = _mm512_cvtepi32_ps(_mm512_load_si512(sums[t][r]));
            acc[t][r] = _mm512_fmadd_ps(_mm512_mul_ps(sx, alpha[r]), d, acc[t][r]);
        }
    }
    if (!p.w->shift) return;
    const __m512 gamma[PANEL] = {_mm512_load_ps(p.gamma[at][0]), _mm512_load_ps(p.gamma[at][1])};
#pragma GCC unroll 16
    for (int t = 0; t < N; t++) {
        const int64_t i = (int64_t)(token + t) * p.w->groups + g;
        const __m512 sx = _mm512_set1_ps(p.x->scale[i]), s = _mm512_set1_ps((float)p.x->sum[i]);
#pragma GCC unroll 2
        for (int r = 0; r < PANEL; r++) acc[t][r] = _mm512_fmadd_ps(_mm512_mul_ps(sx, gamma[r]), s, acc[t][r]);
    }
}

// Starts the products of the chunk's at-th group in registers Sum and Sum+1.
template <int Sum>
inline __attribute__((always_inline)) void start_group(const Panel& p, const int8_t* x, int at) {
    const int32_t left = p.end - p.column - at * p.w->group, columns = left < p.w->group ? left : p.w->group;
    load_tile<Sum>(ZEROS, TILE_BYTES);
    load_tile<Sum + 1>(ZEROS, TILE_BYTES);
    add_products<Sum, 1>(p, x + at * p.w->group, 0, at * p.w->group / 4, (columns + p.step - 1) / p.step);
}

template <int Sum>
inline __attribute__((always_inline)) void store_sums(int32_t (*sums)[PANEL][TERCET_ROWS]) {
    store_tile<Sum>(sums[0][0], sizeof sums[0]);
    store_tile<Sum + 1>(sums[0][1], sizeof sums[0]);
}

// While a group's integers are scaled, the next one's are stored and those of the one after are multiplied: nothing
// waits for what was begun just before.
template <int N>
void groups_block(Panel& p, int block) {
    alignas(64) int32_t sums[2][N][PANEL][TERCET_ROWS];
    const int32_t token = p.token_of(block), g = p.column / p.w->group;
    const int groups = (p.end - p.column + p.w->group - 1) / p.w->group;
    const int8_t* x = p.x->codes + token * p.x->stride + p.column;
    float(*kept)[PANEL][TERCET_ROWS] = p.acc + block * N;
    __m512 acc[N][PANEL];
#pragma GCC unroll 16
    for (int t = 0; t < N; t++)
        for (int r = 0; r < PANEL; r++) acc[t][r] = _mm512_load_ps(kept[t][r]);
    start_group<0>(p, x, 0);
    if (groups > 1) start_group<2>(p, x, 1);
    store_sums<0>(sums[0]);
    for (int at = 0; at < groups; at++) {
        if (at % 2) {
            if (at + 2 < groups) start_group<2>(p, x, at + 2);
            if (at + 1 < groups) store_sums<0>(sums[0]);
        } else {
            if (at + 2 < groups) start_group<0>(p, x, at + 2);
            if (at + 1 < groups) store_sums<2>(sums[1]);
        }
        scale_group<N>(p, sums[at % 2], token, g + at, at, acc);
    }
#pragma GCC unroll 16
    for (int t = 0; t < N; t++)
        for (int r = 0; r < PANEL; r++) _mm512_store_ps(kept[t][r], acc[t][r]);
}

using Block = void (*)(Panel&, int);
constexpr Block groups_blocks[GROUPED_TOKENS] = {
    groups_block<1>, groups_block<2>, groups_block<3>, groups_block<4>,  groups_block<5>,  groups_block<6>,
    groups_block<7>, groups_block<8>, groups_block<9>, groups_block<10>, groups_block<11>, groups_block<12>};

// A blocks of tokens with the chunk.
template <int A>
inline __attribute__((always_inline)) void columns_block(Panel& p, int block) {
    const int8_t* x = p.x->codes + p.token_of(block) * p.x->stride + p.column;
    const int64_t second = (p.token_of(block + 1) - p.token_of(block)) * p.x->stride;
    int32_t(*sums)[PANEL][TERCET_ROWS] = p.sums + block * p.size;
    load_tile<0>(sums[0][0], sizeof sums[0]);
    load_tile<1>(sums[0][1], sizeof sums[0]);
    if constexpr (A == 2) {
        load_tile<2>(sums[p.size][0], sizeof sums[0]);
        load_tile<3>(sums[p.size][1], sizeof sums[0]);
    }
    add_products<0, A>(p, x, second, 0, (p.end - p.column + p.step - 1) / p.step);
    store_tile<0>(sums[0][0], sizeof sums[0]);
    store_tile<1>(sums[0][1], sizeof sums[0]);
    if constexpr (A == 2) {
        store_tile<2>(sums[p.size][0], sizeof sums[0]);
        store_tile<3>(sums[p.size][1], sizeof sums[0]);
    }
}

} // namespace

void multiply_groups(Panel& p) {
    for (int block = 0; block < p.blocks; block++) groups_blocks[p.size - 1](p, block);
}

void multiply_columns(Panel& p) {
    if (p.column % p.w->group == 0) memset(p.sums, 0, (size_t)(p.blocks * p.size) * sizeof p.sums[0]);
    int block = 0;
    for (; block + 2 <= p.blocks; block += 2) columns_block<2>(p, block);
    if (block < p.blocks) columns_block<1>(p, block);
    if (p.end % p.w->group && p.end != p.width) return;
    for (block = 0; block < p.blocks; block++)
        for (int t = 0; t < p.size; t++) {
            const int slot = block * p.size + t;
            __m512 acc[1][PANEL] = {{_mm512_load_ps(p.acc[slot][0]), _mm512_load_ps(p.acc[slot][1])}};
            scale_group<1>(p, p.sums + slot, p.token_of(block) + t, p.column / p.w->group, 0, acc);
            for (int r = 0; r < PANEL; r++) _mm512_store_ps(p.acc[slot][r], acc[0][r]);
        }
}

void load_scales(Panel& p) {
    const int32_t first = p.column / p.w->group, groups = (p.end - p.column + p.w->group - 1) / p.w->group;
    for (int at = 0; at < groups; at++)
        for (int r = 0; r < PANEL; r++) {
            const int64_t from = ((int64_t)(p.tile + r) * p.w->groups + first + at) * TERCET_ROWS;
            f32x16::load(p.w->scale + from).store(p.alpha[at][r]);
            if (p.w->shift) f32x16::load(p.w->shift + from).store(p.gamma[at][r]);
        }
}

void store_panel(const Panel& p, const float* bias, float* y, int64_t y_stride) {
    for (int r = 0; r < PANEL; r++) {
        const int32_t row = (p.tile + r) * TERCET_ROWS;
        const int lanes = p.w->rows - row < TERCET_ROWS ? p.w->rows - row : TERCET_ROWS;
        const f32x16 b = bias ? f32x16::load(bias + row, lanes) : f32x16::zero();
        for (int block = 0; block < p.blocks; block++)
            for (int t = 0; t < p.size; t++) {
                const f32x16 acc = f32x16::load(p.acc[block * p.size + t][r]);
                (bias ? acc + b : acc).store(y + (p.token_of(block) + t) * y_stride + row, lanes);
            }
    }
}

} // namespace tercet::amx
