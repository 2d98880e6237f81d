// The blockwise Hadamard transform over V, a 16-lane float type, in the order docs/format.md fixes: values 1, 2, 4 ...
// apart become (a + b, a - b), where the order is not 1 each `order` values their sums with the signs of a row, and at
// last all are multiplied by 1/sqrt(dim). A stage's sums do not depend on one another, so lanes and loops may be dealt
// out in any way: the first four stages run within a register.
#ifndef TERCET_VECTOR_ROTATE_H
#define TERCET_VECTOR_ROTATE_H

#include "vector_ops.h"

namespace tercet {

// The stages within blocks of 16 values, or of fewer where dim is less; times `factor`.
template <class V>
void rotate_lanes(const float* x, int64_t n, int32_t dim, V factor, float* y) {
    for_lanes<V>(n, [&](int64_t i, int lanes) {
        V v = load_lanes<V>(x + i, lanes);
        if (dim > 1) v = v.template butterfly<1>();
        if (dim > 2) v = v.template butterfly<2>();
        if (dim > 4) v = v.template butterfly<4>();
        if (dim > 8) v = v.template butterfly<8>();
        store_lanes(v * factor, y + i, lanes);
    });
}

// The stage of values `half` apart, half >= 16; times `factor`.
template <class V>
void rotate_stage(float* y, int64_t n, int32_t half, V factor) {
    for (float* block = y; block < y + n; block += 2 * half)
        for (int32_t i = 0; i < half; i += 16) {
            const V a = V::load(block + i), b = V::load(block + half + i);
            ((a + b) * factor).store(block + i);
            ((a - b) * factor).store(block + half + i);
        }
}

// Two stages at once, of values `half` and 2*half apart: half the reading and writing.
template <class V>
void rotate_stages(float* y, int64_t n, int32_t half, V factor) {
    for (float* block = y; block < y + n; block += 4 * half)
        for (int32_t i = 0; i < half; i += 16) {
            float* p = block + i;
            const V a = V::load(p), b = V::load(p + half), c = V::load(p + 2 * half), d = V::load(p + 3 * half);
            const V e = a + b, f = a - b, g = c + d, h = c - d;
            ((e + g) * factor).store(p);
            ((f + h) * factor).store(p + half);
            ((e - g) * factor).store(p + 2 * half);
            ((f - h) * factor).store(p + 3 * half);
        }
}

// The last stage of an order that is not 1: each `order` values `run` apart become their sums with the signs of a row.
template <class V>
void rotate_order(float* y, int64_t n, const tercet_rotation* r, V factor) {
    const int32_t order = r->order, run = r->dim / order;
    V values[TERCET_MOST_ORDER];
    for (float* block = y; block < y + n; block += r->dim)
        for_lanes<V>(run, [&](int64_t i, int lanes) {
            for (int32_t k = 0; k < order; k++) values[k] = load_lanes<V>(block + k * run + i, lanes);
            for (int32_t row = 0; row < order; row++) {
                const float* signs = r->signs + (size_t)row * (size_t)order;
                V sum = values[0] * V::set(signs[0]);
                for (int32_t k = 1; k < order; k++) sum = fma(values[k], V::set(signs[k]), sum); // +-1: one rounding
                store_lanes(sum * factor, block + row * run + i, lanes);
            }
        });
}

template <class V>
void rotate(const float* x, int64_t n, const tercet_rotation* r, float* y) {
    const V one = V::set(1.0f), factor = V::set((float)(1.0 / __builtin_sqrt((double)r->dim)));
    const V last = r->order == 1 ? factor : one;
    const int32_t run = r->dim / r->order;
    rotate_lanes<V>(x, n, run, run <= 16 ? last : one, y);
    int32_t half = 16;
    for (; 4 * half <= run; half *= 4) rotate_stages<V>(y, n, half, 4 * half == run ? last : one);
    if (half < run) rotate_stage<V>(y, n, half, last);
    if (r->order > 1) rotate_order<V>(y, n, r, factor);
}

} // namespace tercet
#endif
