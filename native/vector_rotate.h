// The blockwise Walsh-Hadamard transform over V, a 16-lane float type, in the order docs/format.md fixes: values 1, 2, 4
// ... apart become (a + b, a - b), and at last all are multiplied by 1/sqrt(dim). A stage's sums do not depend on one
// another, so lanes and loops may be dealt out in any way: the first four stages run within a register.
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

template <class V>
void rotate(const float* x, int64_t n, int32_t dim, float* y) {
    const V one = V::set(1.0f), last = V::set((float)(1.0 / __builtin_sqrt((double)dim)));
    rotate_lanes<V>(x, n, dim, dim <= 16 ? last : one, y);
    int32_t half = 16;
    for (; 4 * half <= dim; half *= 4) rotate_stages<V>(y, n, half, 4 * half == dim ? last : one);
    if (half < dim) rotate_stage<V>(y, n, half, last);
}

} // namespace tercet
#endif
