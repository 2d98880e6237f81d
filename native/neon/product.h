// The packed product with so few tokens that codes are unpacked where they are used: R row tiles times N tokens.
// One token takes several row tiles, as many streams from memory, and loads its activations once for all of them.
#ifndef TERCET_NEON_PRODUCT_H
#define TERCET_NEON_PRODUCT_H

#include "../f32x16_neon.h"
#include "unpack.h"

namespace tercet::neon {

constexpr int PREFETCH = 1024; // bytes ahead; past the end of the weights it is harmless
constexpr int QUARTERS = 4;    // registers of a row tile, four rows each

template <int R, int N>
using Sums = int32x4_t[R][N][QUARTERS];

TERCET_INLINE void prefetch(const uint8_t* codes) { __builtin_prefetch(codes + PREFETCH, 0, 0); }

// Sums of products of unpacked bytes: add(d, ...) adds `tiles` column tiles of R row tiles, `stride` bytes apart, times
// N tokens, `x_stride` bytes apart.
template <class Format>
struct Unpacked {
    template <int R, int N>
    TERCET_INLINE void add(Sums<R, N>& d, const uint8_t* codes, int64_t stride, const int8_t* x, int64_t x_stride,
                           int32_t tiles) {
        constexpr int parts = (Format::columns + 15) / 16;
        for (int32_t c = 0; c < tiles; c++, codes += TILE_BYTES, x += Format::columns) {
            int8x16_t quads[N][parts];
#pragma GCC unroll 8
            for (int t = 0; t < N; t++)
                for (int i = 0; i < parts; i++)
                    quads[t][i] = load_quads<Format::columns>(x + t * x_stride + 16 * i);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                prefetch(codes + r * stride);
#pragma GCC unroll 4
                for (int i = 0; i < QUARTERS; i++) {
                    const uint8x16_t rows = vld1q_u8(codes + r * stride + 16 * i);
                    for_slots<Format::columns / 4>([&](auto slot) __attribute__((always_inline)) {
                        constexpr int s = decltype(slot)::value;
                        const int8x16_t bytes = unpack<Format, s>(rows);
#pragma GCC unroll 8
                        for (int t = 0; t < N; t++)
                            d[r][t][i] = vdotq_laneq_s32(d[r][t][i], bytes, quads[t][s / 4], s % 4);
                    });
                }
            }
        }
    }
};

// acc = fma(sx*alpha, d, acc), with a shift acc = fma(sx*gamma, S, acc), for group g of a row tile and a token.
TERCET_INLINE f32x16 scale_group(const tercet_matrix* w, const tercet_activations* x, int32_t tile, int32_t g,
                                 int32_t token, const int32x4_t* d, f32x16 acc) {
    const int64_t at = ((int64_t)tile * w->groups + g) * TERCET_ROWS, of_token = (int64_t)token * w->groups + g;
    const f32x16 sx = f32x16::set(x->scale[of_token]);
    acc = fma(sx * f32x16::load(w->scale + at), f32x16::make([=](int i) { return vcvtq_f32_s32(d[i]); }), acc);
    if (!w->shift) return acc;
    return fma(sx * f32x16::load(w->shift + at), f32x16::set((float)x->sum[of_token]), acc);
}

TERCET_INLINE void store_rows(const tercet_matrix* w, int32_t tile, const float* bias, f32x16 acc, float* y) {
    const int32_t row = tile * TERCET_ROWS;
    if (w->rows - row >= TERCET_ROWS) return (bias ? acc + f32x16::load(bias + row) : acc).store(y + row);
    const int lanes = w->rows - row;
    (bias ? acc + f32x16::load(bias + row, lanes) : acc).store(y + row, lanes);
}

// R row tiles from `tile` on, all tokens of x, of which there are N.
template <class Format, class Products, int R, int N>
void row_tiles(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int64_t y_stride,
               int32_t tile) {
    const int64_t stride = (int64_t)w->col_tiles * TILE_BYTES;
    const uint8_t* codes = (const uint8_t*)w->codes + tile * stride;
    const int32_t group_tiles = w->group / Format::columns;
    f32x16 acc[R][N];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < N; t++) acc[r][t] = f32x16::zero();
    for (int32_t g = 0; g < w->groups; g++) {
        const int32_t begin = g * group_tiles;
        const int32_t count = w->col_tiles - begin < group_tiles ? w->col_tiles - begin : group_tiles;
        Sums<R, N> d;
        for (int r = 0; r < R; r++)
            for (int t = 0; t < N; t++)
                for (int i = 0; i < QUARTERS; i++)
                    d[r][t][i] = vdupq_n_s32(-OFFSET<Format> * x->sum[(int64_t)t * w->groups + g]);
        Products::template add<R, N>(d, codes + (int64_t)begin * TILE_BYTES, stride,
                                     x->codes + (int64_t)begin * Format::columns, x->stride, count);
        for (int r = 0; r < R; r++)
            for (int t = 0; t < N; t++) acc[r][t] = scale_group(w, x, tile + r, g, t, d[r][t], acc[r][t]);
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < N; t++) store_rows(w, tile + r, bias, acc[r][t], y + t * y_stride);
}

// One token; R row tiles at once.
template <class Format, class Products, int R>
void gemv(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int32_t tile_begin,
          int32_t tile_end) {
    int32_t tile = tile_begin;
    for (; tile + R <= tile_end; tile += R) row_tiles<Format, Products, R, 1>(w, x, bias, y, 0, tile);
    for (; tile < tile_end; tile++) row_tiles<Format, Products, 1, 1>(w, x, bias, y, 0, tile);
}

constexpr int FEW = 5; // tokens whose sums, activations and a register of weights fit the 32 registers

template <class Format, int N = 2>
TERCET_LINEAR(few) {
    if constexpr (N < FEW) {
        if (x->n != N) return few<Format, N + 1>(w, x, bias, y, y_stride, tile_begin, tile_end);
    }
    for (int32_t tile = tile_begin; tile < tile_end; tile++)
        row_tiles<Format, Unpacked<Format>, 1, N>(w, x, bias, y, y_stride, tile);
}

} // namespace tercet::neon
#endif
