// Attention of one query head over a KV cache, in blocks of 64 keys aligned to absolute position, so that the order of
// every sum depends on the token's position alone: not on chunks, batches or threads.
//   scores: a lane is a key, dimensions ascending by fma; times the scale
//   online softmax: m' = max(m, block), c = exp(m - m'), p = exp(s - m'), l = fma(l, c, tree(p0+p1 + p2+p3))
//   values: a lane is a dimension, o = o*c, then o = fma(p[key], v[key], o), keys ascending; last o / l
#ifndef TERCET_VECTOR_ATTENTION_H
#define TERCET_VECTOR_ATTENTION_H

#include "vector_ops.h"

namespace tercet {

template <class V, class T>
void store_kv(const tercet_kv* kv, const float* k, const float* v, int32_t kv_heads, int32_t head_dim,
              int64_t position) {
    const int64_t block = position / TERCET_KEY_BLOCK * TERCET_KEY_BLOCK * head_dim;
    for (int32_t h = 0; h < kv_heads; h++, k += head_dim, v += head_dim) {
        T* keys = (T*)kv->keys + h * kv->head_size + block + position % TERCET_KEY_BLOCK;
        T* values = (T*)kv->values + h * kv->head_size + position * head_dim;
        for_lanes<V>(head_dim, [&](int64_t i, int lanes) {
            T column[16];
            load_lanes<V>(k + i, lanes).store(column);
            for (int j = 0; j < lanes; j++) keys[(i + j) * TERCET_KEY_BLOCK] = column[j];
            store_lanes(load_lanes<V>(v + i, lanes), values + i, lanes);
        });
    }
}

template <class V>
void kv_store(const tercet_kv* kv, const float* k, const float* v, int32_t kv_heads, int32_t head_dim,
              int64_t position) {
    if (kv->type == TERCET_KV_F16) store_kv<V, uint16_t>(kv, k, v, kv_heads, head_dim, position);
    else store_kv<V, float>(kv, k, v, kv_heads, head_dim, position);
}

// scores of the 64 keys of a block; those outside [begin, end) are -inf.
template <class V, class T>
void score_block(const T* keys, const float* q, int32_t head_dim, float scale, int begin, int end, float* scores) {
    V s[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    for (int32_t d = 0; d < head_dim; d++, keys += TERCET_KEY_BLOCK) {
        const V component = V::set(q[d]);
        for (int j = 0; j < 4; j++) s[j] = fma(component, V::load(keys + 16 * j), s[j]);
    }
    for (int j = 0; j < 4; j++) (s[j] * V::set(scale)).store(scores + 16 * j);
    for (int i = 0; i < begin; i++) scores[i] = -__builtin_inff();
    for (int i = end; i < TERCET_KEY_BLOCK; i++) scores[i] = -__builtin_inff();
}

// out[first .. first+16*W) = out*correction + p.v over keys begin..end of a block whose values start at `values`.
template <class V, int W, class T>
void add_values(const T* values, const float* p, int32_t head_dim, int begin, int end, float correction, float* out) {
    V o[W];
    for (int j = 0; j < W; j++) o[j] = V::load(out + 16 * j) * V::set(correction);
    for (int i = begin; i < end; i++) {
        const V weight = V::set(p[i]);
        for (int j = 0; j < W; j++) o[j] = fma(weight, V::load(values + (int64_t)i * head_dim + 16 * j), o[j]);
    }
    for (int j = 0; j < W; j++) o[j].store(out + 16 * j);
}

template <class V, class T>
void add_values_tail(const T* values, const float* p, int32_t head_dim, int begin, int end, float correction,
                     float* out, int lanes) {
    V o = V::load(out, lanes) * V::set(correction);
    for (int i = begin; i < end; i++) o = fma(V::set(p[i]), V::load(values + (int64_t)i * head_dim, lanes), o);
    o.store(out, lanes);
}

template <class V, class T>
void attend(const tercet_attention* a, const T* keys, const T* values, const float* q, int64_t position, float* out) {
    const int32_t dim = a->head_dim;
    const int64_t first = a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
    float peak = -__builtin_inff(), total = 0.0f;
    memset(out, 0, (size_t)dim * sizeof(float));
    for (int64_t base = first / TERCET_KEY_BLOCK * TERCET_KEY_BLOCK; base <= position; base += TERCET_KEY_BLOCK) {
        const int begin = first > base ? (int)(first - base) : 0;
        const int end = position - base < TERCET_KEY_BLOCK ? (int)(position - base) + 1 : TERCET_KEY_BLOCK;
        float p[TERCET_KEY_BLOCK];
        score_block<V>(keys + base * dim, q, dim, a->scale, begin, end, p);
        V s[4];
        for (int j = 0; j < 4; j++) s[j] = V::load(p + 16 * j);
        const float highest = max(max(s[0], s[1]), max(s[2], s[3])).max();
        const float next = highest > peak ? highest : peak;
        float corrections[16];
        exp(V::set(peak - next)).store(corrections);
        for (int j = 0; j < 4; j++) {
            s[j] = exp(s[j] - V::set(next));
            s[j].store(p + 16 * j);
        }
        total = __builtin_fmaf(total, corrections[0], ((s[0] + s[1]) + (s[2] + s[3])).sum());
        peak = next;
        const T* block = values + base * dim;
        int32_t d = 0;
        for (; d + 64 <= dim; d += 64) add_values<V, 4>(block + d, p, dim, begin, end, corrections[0], out + d);
        for (; d + 16 <= dim; d += 16) add_values<V, 1>(block + d, p, dim, begin, end, corrections[0], out + d);
        if (d < dim) add_values_tail<V>(block + d, p, dim, begin, end, corrections[0], out + d, dim - d);
    }
    for_lanes<V>(dim, [&](int64_t i, int lanes) {
        store_lanes(load_lanes<V>(out + i, lanes) / V::set(total), out + i, lanes);
    });
}

template <class V>
void attention(const tercet_attention* a, const tercet_kv* kv, const float* q, int32_t head, int64_t position,
               float* out) {
    const int64_t slab = head / (a->heads / a->kv_heads) * kv->head_size;
    if (kv->type == TERCET_KV_F16)
        attend<V>(a, (const uint16_t*)kv->keys + slab, (const uint16_t*)kv->values + slab, q, position, out);
    else attend<V>(a, (const float*)kv->keys + slab, (const float*)kv->values + slab, q, position, out);
}

} // namespace tercet
#endif
