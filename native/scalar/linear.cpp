// The packed products in plain loops: the oracle of every instruction set.
#include "../backends.h"
#include "../f32x16_scalar.h"

namespace tercet {
namespace {

constexpr int BLOCK = 16; // tokens that share a decoded tile

// products[t][r] += the integer weights of one tile times the activations of its columns, `columns` of them
template <class Format>
void add_tile(const uint8_t* tile, int columns, const int8_t* x, int64_t stride, int tokens,
              int32_t (*products)[TERCET_ROWS]) {
    for (int r = 0; r < TERCET_ROWS; r++) {
        int weights[Format::columns];
        for (int j = 0; j < columns; j++) weights[j] = weight_of<Format>(tile + 4 * r, j);
        for (int t = 0; t < tokens; t++)
            for (int j = 0; j < columns; j++) products[t][r] += weights[j] * x[t * stride + j];
    }
}

// One row tile with at most BLOCK tokens from `first` on.
template <class Format>
void row_tile(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int64_t y_stride,
              int32_t tile, int32_t first, int tokens) {
    const uint8_t* codes = (const uint8_t*)w->codes + (int64_t)tile * w->col_tiles * TILE_BYTES;
    float acc[BLOCK][TERCET_ROWS] = {};
    for (int32_t g = 0; g < w->groups; g++) {
        int32_t products[BLOCK][TERCET_ROWS] = {};
        const int8_t* activations = x->codes + first * x->stride + g * w->group;
        const int32_t columns = columns_of_group(w, g);
        for (int32_t c = 0; c < columns; c += Format::columns, codes += TILE_BYTES)
            add_tile<Format>(codes, columns - c < Format::columns ? columns - c : Format::columns, activations + c,
                             x->stride, tokens, products);
        for (int t = 0; t < tokens; t++) {
            const int64_t at = (int64_t)(first + t) * x->groups + g;
            for (int r = 0; r < TERCET_ROWS; r++) {
                const int64_t lane = ((int64_t)tile * w->groups + g) * TERCET_ROWS + r;
                const float alpha = scalar::half_to_float(w->scale[lane]);
                acc[t][r] = fmaf(x->scale[at] * alpha, (float)products[t][r], acc[t][r]);
                if (!w->shift) continue;
                const float gamma = scalar::half_to_float(w->shift[lane]);
                acc[t][r] = fmaf(x->scale[at] * gamma, (float)x->sum[at], acc[t][r]);
            }
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int32_t r = 0; r < TERCET_ROWS && tile * TERCET_ROWS + r < w->rows; r++) {
            const int32_t out = tile * TERCET_ROWS + r;
            y[(first + t) * y_stride + out] = bias ? acc[t][r] + bias[out] : acc[t][r];
        }
}

template <class Format>
TERCET_LINEAR(linear) {
    for (int32_t first = 0; first < x->n; first += BLOCK) {
        const int tokens = x->n - first < BLOCK ? x->n - first : BLOCK;
        for (int32_t tile = tile_begin; tile < tile_end; tile++)
            row_tile<Format>(w, x, bias, y, y_stride, tile, first, tokens);
    }
}

} // namespace

TERCET_LINEAR(t2_linear_scalar) { linear<T2>(w, x, bias, y, y_stride, tile_begin, tile_end); }
TERCET_LINEAR(b1_linear_scalar) { linear<B1>(w, x, bias, y, y_stride, tile_begin, tile_end); }
TERCET_LINEAR(q8_linear_scalar) { linear<Q8>(w, x, bias, y, y_stride, tile_begin, tile_end); }
TERCET_LINEAR(q4_linear_scalar) { linear<Q4>(w, x, bias, y, y_stride, tile_begin, tile_end); }
TERCET_LINEAR(t19_linear_scalar) { linear<T19>(w, x, bias, y, y_stride, tile_begin, tile_end); }

} // namespace tercet
