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

template <class V>
void rotate(const float* x, int64_t n, int32_t dim, float* y) {
    const V one = V::set(1.0f), last = V::set((float)(1.0 / __builtin_sqrt((double)dim)));
    rotate_lanes<V>(x, n, dim, dim <= 16 ? last : one, y);
    for (int32_t half = 16; half < dim; half *= 2) rotate_stage<V>(y, n, half, 2 * half == dim ? last : one);
}

} // namespace tercet
#endif
