// What sampling asks of all logits, over V: the highest of each lane's part of a chunk, and weights with their sums.
// A chunk is TERCET_SAMPLE_CHUNK logits; its lane j holds elements j, j+16, ... of it.
#ifndef TERCET_VECTOR_SAMPLING_H
#define TERCET_VECTOR_SAMPLING_H

#include "vector_ops.h"

namespace tercet {

template <class V, class F>
void for_chunks(int64_t n, F&& body) { // body(chunk, begin, count)
    constexpr int64_t size = TERCET_SAMPLE_CHUNK;
    for (int64_t begin = 0; begin < n; begin += size) body(begin / size, begin, n - begin < size ? n - begin : size);
}

template <class V>
void maxima(const float* x, int64_t n, float* highest) {
    for_chunks<V>(n, [&](int64_t chunk, int64_t begin, int64_t count) {
        V m[4];
        for (int j = 0; j < 4; j++) m[j] = V::set(-__builtin_inff());
        int64_t i = 0;
        for (; i + 64 <= count; i += 64)
            for (int j = 0; j < 4; j++) m[j] = max(V::load(x + begin + i + 16 * j), m[j]);
        m[0] = max(max(m[0], m[1]), max(m[2], m[3]));
        for (; i + 16 <= count; i += 16) m[0] = max(V::load(x + begin + i), m[0]);
        m[0].store(highest + 16 * chunk);
        for (; i < count; i++) {
            float* lane = highest + 16 * chunk + i % 16;
            if (x[begin + i] > *lane) *lane = x[begin + i];
        }
    });
}

template <class V>
void weights(const float* x, int64_t n, float top, float factor, float least, float* y, float* sums) {
    for_chunks<V>(n, [&](int64_t chunk, int64_t begin, int64_t count) {
        V total = V::zero();
        for_lanes<V>(count, [&](int64_t i, int lanes) {
            const V w = exp_negative((load_lanes<V>(x + begin + i, lanes) - V::set(top)) * V::set(factor));
            const V kept = select_less(w, V::set(least), V::zero(), w).head(lanes);
            total = total + kept;
            if (y) store_lanes(kept, y + begin + i, lanes);
        });
        if (sums) sums[chunk] = total.sum();
    });
}

} // namespace tercet
#endif
