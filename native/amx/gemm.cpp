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

// acc = fma(sx*alpha, D, acc), with a shift acc = fma(sx*gamma, S, acc), for tokens Begin to End of a block that begins
// at `token`, and the chunk's at-th group.
template <int Begin, int End, int N>
inline __attribute__((always_inline)) void scale_group(const Panel& p, const int32_t (*sums)[PANEL][TERCET_ROWS],
                                                       int32_t token, int at, __m512 (&acc)[N][PANEL]) {
    const int64_t first = (int64_t)(token + Begin) * p.w->groups + p.group + at;
    const float* scale = p.x->scale + first;
    const __m512 alpha[PANEL] = {_mm512_load_ps(p.alpha[at][0]), _mm512_load_ps(p.alpha[at][1])};
#pragma GCC unroll 16
    for (int t = Begin; t < End; t++, scale += p.w->groups) {
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
    for (int t = Begin; t < End; t++) {
        const int64_t i = first + (t - Begin) * p.w->groups;
        const __m512 sx = _mm512_set1_ps(p.x->scale[i]), s = _mm512_set1_ps((float)p.x->sum[i]);
#pragma GCC unroll 2
        for (int r = 0; r < PANEL; r++) acc[t][r] = _mm512_fmadd_ps(_mm512_mul_ps(sx, gamma[r]), s, acc[t][r]);
    }
}

// Multiplies one group after another with one block of tokens after another, in registers 0 and 1.
class Products {
  public:
    explicit Products(const Panel& panel) : p(panel) { begin_block(); }

    bool left() const { return block < p.blocks; }

    // All of the group that meets the first row tile.
    inline __attribute__((always_inline)) void first() {
        zero_tile<0>();
        zero_tile<1>();
        for (const int32_t last = group_end() - p.step; column < last; column += p.step)
            add_products<0, 1>(p, x + column, 0, column / 4, 1);
        load_tile<4>(x + column, p.x->stride);
        load_tile<6>(p.weights[0][column / 4], TILE_BYTES);
        multiply_tiles<0, 4, 6>();
    }

    inline __attribute__((always_inline)) void second() {
        load_tile<7>(p.weights[1][column / 4], TILE_BYTES);
        multiply_tiles<1, 4, 7>();
        column += p.step;
        if (column < p.end - p.column) return;
        block++;
        begin_block();
    }

  private:
    void begin_block() {
        if (left()) x = p.x->codes + p.token_of(block) * p.x->stride + p.column;
        column = 0;
    }
    // Of the group of `column`, counted from the chunk's begin.
    int32_t group_end() const {
        const int32_t end = column + p.w->group, columns = p.end - p.column;
        return end < columns ? end : columns;
    }

    const Panel& p;
    const int8_t* x;
    int32_t column; // of the chunk
    int block = 0;
};

// The chunk's groups with all blocks of N tokens. Three products are under way: while one's integers are scaled, the
// next one's are stored and those of the one after are multiplied. The instructions alternate: a tile load or store is
// so many operations that a few in a row keep the CPU from seeing the floats behind them.
template <int N>
void multiply_groups(Panel& p) {
    alignas(64) int32_t sums[2][N][PANEL][TERCET_ROWS];
    constexpr int64_t pitch = sizeof sums[0][0];
    Products products(p);
    products.first();
    products.second();
    store_tile<0>(sums[0][0][0], pitch);
    store_tile<1>(sums[0][0][1], pitch);
    bool store = products.left();
    if (store) {
        products.first();
        products.second();
    }
    int parity = 0;
    for (int block = 0; block < p.blocks; block++) {
        const int32_t token = p.token_of(block);
        float(*kept)[PANEL][TERCET_ROWS] = p.acc + block * N;
        __m512 acc[N][PANEL];
#pragma GCC unroll 16
        for (int t = 0; t < N; t++)
            for (int r = 0; r < PANEL; r++) acc[t][r] = _mm512_load_ps(kept[t][r]);
        for (int at = 0; at < p.groups; at++, parity ^= 1) {
            const int32_t(*scaled)[PANEL][TERCET_ROWS] = sums[parity];
            int32_t(*stored)[PANEL][TERCET_ROWS] = sums[parity ^ 1];
            const bool multiply = products.left();
            if (store) store_tile<0>(stored[0][0], pitch);
            scale_group<0, N / 4>(p, scaled, token, at, acc);
            if (store) store_tile<1>(stored[0][1], pitch);
            scale_group<N / 4, N / 2>(p, scaled, token, at, acc);
            if (multiply) products.first();
            scale_group<N / 2, N * 3 / 4>(p, scaled, token, at, acc);
            if (multiply) products.second();
            scale_group<N * 3 / 4, N>(p, scaled, token, at, acc);
            store = multiply;
        }
#pragma GCC unroll 16
        for (int t = 0; t < N; t++)
            for (int r = 0; r < PANEL; r++) _mm512_store_ps(kept[t][r], acc[t][r]);
    }
}

using Multiply = void (*)(Panel&);
constexpr Multiply multiply_groups_of[GROUPED_TOKENS] = {
    multiply_groups<1>, multiply_groups<2>, multiply_groups<3>, multiply_groups<4>,
    multiply_groups<5>, multiply_groups<6>, multiply_groups<7>, multiply_groups<8>,
    multiply_groups<9>, multiply_groups<10>, multiply_groups<11>, multiply_groups<12>};

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

// The panel's rows of y, and what is added to them.
class Rows {
  public:
    explicit Rows(const Panel& panel) : p(panel), row(panel.tile * TERCET_ROWS) {
        for (int r = 0; r < PANEL; r++) {
            const int32_t left = p.w->rows - row - r * TERCET_ROWS;
            lanes[r] = (__mmask16)(left < TERCET_ROWS ? (1 << left) - 1 : 0xffff);
            bias[r] = p.bias ? _mm512_maskz_loadu_ps(lanes[r], p.bias + row + r * TERCET_ROWS) : _mm512_setzero_ps();
        }
    }

    inline __attribute__((always_inline)) void store(int32_t token, __m512 first, __m512 second) const {
        float* out = p.y + token * p.y_stride + row;
        _mm512_mask_storeu_ps(out, lanes[0], p.bias ? _mm512_add_ps(first, bias[0]) : first);
        _mm512_mask_storeu_ps(out + TERCET_ROWS, lanes[1], p.bias ? _mm512_add_ps(second, bias[1]) : second);
    }

  private:
    const Panel& p;
    const int32_t row;
    __mmask16 lanes[PANEL];
    __m512 bias[PANEL];
};

// Turns whole sums to results, a few tokens at a time, while the next ones' products are under way.
class Finish {
  public:
    explicit Finish(const Panel& panel) : p(panel), rows(panel) {
        for (int r = 0; r < PANEL; r++) {
            alpha[r] = _mm512_load_ps(p.alpha[0][r]);
            if (p.w->shift) gamma[r] = _mm512_load_ps(p.gamma[0][r]);
        }
    }

    // `count` blocks from `block` on are summed up.
    void begin(int block, int count, const int32_t (*block_sums)[PANEL][TERCET_ROWS]) {
        sums = block_sums;
        first = p.token_of(block);
        jump = count > 1 ? p.token_of(block + 1) - first - p.size : 0;
        at = 0;
        end = count * p.size;
    }

    inline __attribute__((always_inline)) void tokens(int count) {
        for (const int stop = at + count < end ? at + count : end; at < stop; at++) {
            const int32_t token = first + at + (at < p.size ? 0 : jump);
            const __m512 sx = _mm512_set1_ps(p.x->scale[token]);
            __m512 y[PANEL];
            for (int r = 0; r < PANEL; r++)
                y[r] = _mm512_fmadd_ps(_mm512_mul_ps(sx, alpha[r]), _mm512_cvtepi32_ps(_mm512_load_si512(sums[at][r])),
                                       _mm512_setzero_ps());
            if (p.w->shift)
                for (int r = 0; r < PANEL; r++)
                    y[r] = _mm512_fmadd_ps(_mm512_mul_ps(sx, gamma[r]), _mm512_set1_ps((float)p.x->sum[token]), y[r]);
            rows.store(token, y[0], y[1]);
        }
    }

  private:
    const Panel& p;
    const Rows rows;
    __m512 alpha[PANEL], gamma[PANEL];
    const int32_t (*sums)[PANEL][TERCET_ROWS] = nullptr;
    int32_t first = 0, jump = 0;
    int at = 0, end = 0;
};

// A blocks of tokens with the chunk, added to `sums` or, where it is the first, written there. Results before it are
// finished meanwhile.
template <int A>
inline __attribute__((always_inline)) void rows_block(Panel& p, int block, int32_t (*sums)[PANEL][TERCET_ROWS],
                                                      Finish& finish) {
    const int8_t* x = p.x->codes + p.token_of(block) * p.x->stride + p.column;
    const int64_t second = (p.token_of(block + 1) - p.token_of(block)) * p.x->stride;
    constexpr int64_t pitch = sizeof sums[0];
    if (p.column == 0) {
        zero_tile<0>();
        zero_tile<1>();
        zero_tile<2>();
        zero_tile<3>();
    } else {
        load_tile<0>(sums[0][0], pitch);
        load_tile<1>(sums[0][1], pitch);
        if constexpr (A == 2) {
            load_tile<2>(sums[p.size][0], pitch);
            load_tile<3>(sums[p.size][1], pitch);
        }
    }
    const int steps = (p.end - p.column + p.step - 1) / p.step, share = (A * p.size + steps - 1) / steps;
    for (int i = 0; i < steps; i++) {
        add_products<0, A>(p, x + i * p.step, second, i * p.step / 4, 1);
        finish.tokens(share);
    }
    finish.tokens(2 * WIDE_TOKENS);
    store_tile<0>(sums[0][0], pitch);
    store_tile<1>(sums[0][1], pitch);
    if constexpr (A == 2) {
        store_tile<2>(sums[p.size][0], pitch);
        store_tile<3>(sums[p.size][1], pitch);
    }
}

} // namespace

void multiply_groups(Panel& p) {
    multiply_groups_of[p.size - 1](p);
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
            scale_group<0, 1>(p, p.sums + slot, p.token_of(block) + t, 0, acc);
            for (int r = 0; r < PANEL; r++) _mm512_store_ps(p.acc[slot][r], acc[0][r]);
        }
}

void multiply_rows(Panel& p) {
    const bool last = p.end == p.width;
    Finish finish(p);
    for (int block = 0; block < p.blocks; block += 2) {
        int32_t(*sums)[PANEL][TERCET_ROWS] = p.sums + block * p.size;
        const int count = p.blocks - block < 2 ? 1 : 2;
        if (count == 2) rows_block<2>(p, block, sums, finish);
        else rows_block<1>(p, block, sums, finish);
        if (last) finish.begin(block, count, sums);
    }
    finish.tokens(2 * WIDE_TOKENS);
}

void load_scales(Panel& p) {
    for (int at = 0; at < p.groups; at++)
        for (int r = 0; r < PANEL; r++) {
            const int64_t from = ((int64_t)(p.tile + r) * p.w->groups + p.group + at) * TERCET_ROWS;
            f32x16::load(p.w->scale + from).store(p.alpha[at][r]);
            if (p.w->shift) f32x16::load(p.w->shift + from).store(p.gamma[at][r]);
        }
}

void store_panel(const Panel& p) {
    const Rows rows(p);
    for (int block = 0; block < p.blocks; block++)
        for (int t = 0; t < p.size; t++) {
            const float(*acc)[TERCET_ROWS] = p.acc[block * p.size + t];
            rows.store(p.token_of(block) + t, _mm512_load_ps(acc[0]), _mm512_load_ps(acc[1]));
        }
}

} // namespace tercet::amx
