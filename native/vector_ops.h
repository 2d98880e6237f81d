// The float operations of a transformer, over V, a 16-lane float type: written once, compiled for each instruction set.
// One reduction order: lane i takes elements i, i+16, ...; then V::sum's tree. A tail is filled with zeros.
#ifndef TERCET_VECTOR_OPS_H
#define TERCET_VECTOR_OPS_H

#include <string.h>

#include "vector_math.h"

namespace tercet {

// The lanes of step i of n elements: 16, or what is left. Static: the linker must not share it between instruction sets.
static inline int lanes_left(int64_t n, int64_t i) { return n - i < 16 ? (int)(n - i) : 16; }

template <class V, class F>
void for_lanes(int64_t n, F&& body) { // body(i, lanes)
    for (int64_t i = 0; i < n; i += 16) body(i, lanes_left(n, i));
}

template <class V, class T>
V load_lanes(const T* p, int lanes) {
    return lanes == 16 ? V::load(p) : V::load(p, lanes);
}

template <class V, class T>
void store_lanes(V v, T* p, int lanes) {
    if (lanes == 16) v.store(p);
    else v.store(p, lanes);
}

constexpr int32_t EXACT_SUM = 65536; // codes whose sum a float holds exactly: 127 * 65536 < 2^24

// scale = amax/127 and factor = 127/amax of x, or both 0. Returns false where a value is not finite.
template <class V>
bool group_scale(const float* x, int columns, float* scale, float* factor) {
    V largest = V::zero(), spoiled = V::zero();
    for_lanes<V>(columns, [&](int64_t i, int lanes) {
        const V v = load_lanes<V>(x + i, lanes);
        largest = max(largest, v.abs());
        spoiled = fma(v, V::zero(), spoiled); // NaN once a value is not finite
    });
    if (spoiled.sum() != 0.0f) return false;
    const float amax = largest.max(), inverse = 127.0f / amax;
    const bool zero = !(inverse <= 3.40282347e38f); // amax is 0, or so small that 127/amax overflows
    *scale = zero ? 0.0f : amax / 127.0f;
    *factor = zero ? 0.0f : inverse;
    return true;
}

// One group of one token. Returns false where a value is not finite.
template <class V>
bool quantize_group(const float* x, int columns, int8_t* codes, float* scale, int32_t* sum) {
    float multiplier;
    if (!group_scale<V>(x, columns, scale, &multiplier)) return false;
    const V factor = V::set(multiplier), round = V::set(0x1.8p23f);
    *sum = 0;
    for (int32_t begin = 0; begin < columns; begin += EXACT_SUM) {
        V total = V::zero();
        for_lanes<V>(columns - begin < EXACT_SUM ? columns - begin : EXACT_SUM, [&](int64_t i, int lanes) {
            const V v = (load_lanes<V>(x + begin + i, lanes) * factor + round) - round; // to nearest even
            total = total + v;
            if (lanes == 16) return v.store(codes + begin + i);
            int8_t tail[16];
            v.store(tail);
            memcpy(codes + begin + i, tail, (size_t)lanes);
        });
        *sum += (int32_t)total.sum();
    }
    return true;
}

template <class V>
int quantize(const float* x, int64_t x_stride, int32_t n, int32_t cols, int32_t group, int32_t groups, int64_t stride,
             int8_t* codes, float* scale, int32_t* sum) {
    for (int32_t t = 0; t < n; t++, x += x_stride, codes += stride, scale += groups, sum += groups) {
        for (int32_t g = 0; g < groups; g++) {
            const int32_t begin = g * group, columns = cols - begin < group ? cols - begin : group;
            if (!quantize_group<V>(x + begin, columns, codes + begin, scale + g, sum + g)) return 1;
        }
        memset(codes + cols, 0, (size_t)(stride - cols));
    }
    return 0;
}

template <class V>
void rmsnorm(const float* x, const float* weight, float eps, int32_t rows, int32_t dim, float* y) {
    for (int32_t r = 0; r < rows; r++, x += dim, y += dim) {
        V squares = V::zero();
        for_lanes<V>(dim, [&](int64_t i, int lanes) {
            const V v = load_lanes<V>(x + i, lanes);
            squares = fma(v, v, squares);
        });
        const V factor = V::set(1.0f / __builtin_sqrtf(squares.sum() / (float)dim + eps));
        for_lanes<V>(dim, [&](int64_t i, int lanes) {
            store_lanes(load_lanes<V>(x + i, lanes) * factor * load_lanes<V>(weight + i, lanes), y + i, lanes);
        });
    }
}

template <class V>
void layernorm(const float* x, const float* weight, const float* bias, float eps, int32_t rows, int32_t dim, float* y) {
    for (int32_t r = 0; r < rows; r++, x += dim, y += dim) {
        V total = V::zero(), squares = V::zero();
        for_lanes<V>(dim, [&](int64_t i, int lanes) { total = total + load_lanes<V>(x + i, lanes); });
        const V mean = V::set(total.sum() / (float)dim);
        for_lanes<V>(dim, [&](int64_t i, int lanes) {
            const V v = (load_lanes<V>(x + i, lanes) - mean).head(lanes);
            squares = fma(v, v, squares);
        });
        const V factor = V::set(1.0f / __builtin_sqrtf(squares.sum() / (float)dim + eps));
        for_lanes<V>(dim, [&](int64_t i, int lanes) {
            const V v = (load_lanes<V>(x + i, lanes) - mean) * factor, w = load_lanes<V>(weight + i, lanes);
            store_lanes(bias ? fma(v, w, load_lanes<V>(bias + i, lanes)) : v * w, y + i, lanes);
        });
    }
}

// y1 = fma(x1, cos, -(x2*sin)), y2 = fma(x2, cos, x1*sin)
template <class V>
void rope(float* x, const float* cos, const float* sin, int32_t heads, int32_t head_dim, int32_t rotary_dim) {
    const int32_t half = rotary_dim / 2;
    for (int32_t h = 0; h < heads; h++, x += head_dim) {
        for_lanes<V>(half, [&](int64_t i, int lanes) {
            const V x1 = load_lanes<V>(x + i, lanes), x2 = load_lanes<V>(x + half + i, lanes);
            const V c = load_lanes<V>(cos + i, lanes), s = load_lanes<V>(sin + i, lanes);
            store_lanes(fma(x1, c, -(x2 * s)), x + i, lanes);
            store_lanes(fma(x2, c, x1 * s), x + half + i, lanes);
        });
    }
}

template <class V>
void activate(int32_t function, const float* x, int64_t n, float* y) {
    for_lanes<V>(n, [&](int64_t i, int lanes) {
        store_lanes(activation(function, load_lanes<V>(x + i, lanes)), y + i, lanes);
    });
}

template <class V>
void gated(int32_t function, const float* gate, const float* up, int64_t n, float* y) {
    for_lanes<V>(n, [&](int64_t i, int lanes) {
        store_lanes(activation(function, load_lanes<V>(gate + i, lanes)) * load_lanes<V>(up + i, lanes), y + i, lanes);
    });
}

// A NaN stays.
template <class V>
void clip(const float* x, int64_t n, float limit, float* y) {
    const V low = V::set(-limit), high = V::set(limit);
    for_lanes<V>(n, [&](int64_t i, int lanes) {
        store_lanes(max(low, min(high, load_lanes<V>(x + i, lanes))), y + i, lanes);
    });
}

template <class V>
void add(const float* a, const float* b, int64_t n, float* y) {
    for_lanes<V>(n, [&](int64_t i, int lanes) {
        store_lanes(load_lanes<V>(a + i, lanes) + load_lanes<V>(b + i, lanes), y + i, lanes);
    });
}

} // namespace tercet
#endif
