// Float views of a weight matrix of any format, over V: one row dequantized, and the product with float activations.
// A weight is f32(scale)*q + f32(shift), one rounding (the product is exact), -0 made +0: what dequantize() gives.
// The product: lane i takes columns i, i+16, ... ascending by fma, then V::sum's tree, then the bias.
#ifndef TERCET_VECTOR_LINEAR_H
#define TERCET_VECTOR_LINEAR_H

#include "formats.h"
#include "vector_ops.h"

namespace tercet {

constexpr int CHUNK = 256; // columns dequantized at once

// Columns begin .. begin+count of a row; begin is a multiple of CHUNK, count at most CHUNK.
template <class V, class Format>
void decode_packed(const tercet_matrix* w, int32_t row, int32_t begin, int32_t count, float* out) {
    const int64_t tile_row = row / TERCET_ROWS, lane = row % TERCET_ROWS;
    const uint8_t* codes = (const uint8_t*)w->codes + tile_row * w->col_tiles * TILE_BYTES + lane * 4;
    for (int32_t c = 0; c < count;) {
        const int32_t column = begin + c, g = column / w->group, within = column - g * w->group;
        const int32_t tile = g * tiles_of_group<Format>(w) + within / Format::columns, first = within % Format::columns;
        const int64_t at = (tile_row * w->groups + g) * TERCET_ROWS + lane;
        const float scale = V::load(w->scale + at, 1).sum();
        const float shift = w->shift ? V::load(w->shift + at, 1).sum() : 0.0f;
        const uint8_t* bytes = codes + (int64_t)tile * TILE_BYTES;
        int32_t end = columns_of_group(w, g) - (within - first); // columns of the tile there are
        if (end > Format::columns) end = Format::columns;
        if (end > first + count - c) end = first + count - c;
        for (int32_t j = first; j < end; j++)
            out[c + j - first] = scale * (float)weight_of<Format>(bytes, j) + shift + 0.0f;
        c += end - first;
    }
}

template <class V, class T>
void decode_float(const tercet_matrix* w, int32_t row, int32_t begin, int32_t count, float* out) {
    const T* p = (const T*)w->codes + (int64_t)row * w->cols + begin;
    for_lanes<V>(count, [&](int64_t i, int lanes) { store_lanes(load_lanes<V>(p + i, lanes), out + i, lanes); });
}

template <class V>
void decode(const tercet_matrix* w, int32_t row, int32_t begin, int32_t count, float* out) {
    switch (w->format) {
    case TERCET_T2: return decode_packed<V, T2>(w, row, begin, count, out);
    case TERCET_B1: return decode_packed<V, B1>(w, row, begin, count, out);
    case TERCET_Q8: return decode_packed<V, Q8>(w, row, begin, count, out);
    case TERCET_Q4: return decode_packed<V, Q4>(w, row, begin, count, out);
    case TERCET_T19: return decode_packed<V, T19>(w, row, begin, count, out);
    case TERCET_F16: return decode_float<V, uint16_t>(w, row, begin, count, out);
    default: return decode_float<V, float>(w, row, begin, count, out);
    }
}

template <class V>
void row(const tercet_matrix* w, int32_t index, float factor, float* y) {
    for (int32_t begin = 0; begin < w->cols; begin += CHUNK) {
        const int32_t count = w->cols - begin < CHUNK ? w->cols - begin : CHUNK;
        decode<V>(w, index, begin, count, y + begin);
    }
    for_lanes<V>(w->cols, [&](int64_t i, int lanes) {
        store_lanes(load_lanes<V>(y + i, lanes) * V::set(factor), y + i, lanes);
    });
}

// N tokens with rows begin .. end.
template <class V, int N>
void linear_tokens(const tercet_matrix* w, const float* x, int64_t x_stride, const float* bias, float* y,
                   int64_t y_stride, int32_t begin, int32_t end) {
    for (int32_t r = begin; r < end; r++) {
        V acc[N];
        for (int t = 0; t < N; t++) acc[t] = V::zero();
        for (int32_t c = 0; c < w->cols; c += CHUNK) {
            float weights[CHUNK];
            const int32_t count = w->cols - c < CHUNK ? w->cols - c : CHUNK;
            decode<V>(w, r, c, count, weights);
            for_lanes<V>(count, [&](int64_t i, int lanes) {
                const V v = load_lanes<V>(weights + i, lanes);
                for (int t = 0; t < N; t++) acc[t] = fma(v, load_lanes<V>(x + t * x_stride + c + i, lanes), acc[t]);
            });
        }
        for (int t = 0; t < N; t++) y[t * y_stride + r] = bias ? acc[t].sum() + bias[r] : acc[t].sum();
    }
}

template <class V>
void linear_float(const tercet_matrix* w, const float* x, int64_t x_stride, int32_t n, const float* bias, float* y,
                  int64_t y_stride, int32_t tile_begin, int32_t tile_end) {
    const int32_t begin = tile_begin * TERCET_ROWS;
    const int32_t end = tile_end * TERCET_ROWS < w->rows ? tile_end * TERCET_ROWS : w->rows;
    int32_t t = 0;
    for (; t + 8 <= n; t += 8)
        linear_tokens<V, 8>(w, x + t * x_stride, x_stride, bias, y + t * y_stride, y_stride, begin, end);
    for (; t < n; t++)
        linear_tokens<V, 1>(w, x + t * x_stride, x_stride, bias, y + t * y_stride, y_stride, begin, end);
}

} // namespace tercet
#endif
