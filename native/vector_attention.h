// Attention over a KV cache, in blocks of 64 keys aligned to absolute position. The order of every sum depends on the
// query's position alone (on the number of keys where it sees all): not on chunks, batches or threads.
//   scores: a lane is a key, dimensions ascending by fma; times the key's scale (int8), then times `scale`
//   online softmax: m' = max(m, block), c = exp(m - m'), p = exp(s - m'), l = fma(l, c, tree(p0+p1 + p2+p3))
//   values: a lane is a dimension, o = o*c, then o = fma(p, v, o), keys ascending; int8: p times the value's scale
//   last o / l, -0 made +0
// Queries that share a KV head are computed together: up to QUERIES of them read a block of keys that was converted to
// float once, in tiles of 6 queries whose sums stay in registers. A key that one query of a tile sees and another
// does not has p = 0 for the latter, which changes no sum (but the sign of a zero, hence the last line above).
#ifndef TERCET_VECTOR_ATTENTION_H
#define TERCET_VECTOR_ATTENTION_H

#include "vector_kv.h"

namespace tercet {

constexpr int QUERIES = 48; // a multiple of TILE and of 16
constexpr int SLICE = 64;   // dimensions converted at once

// Queries of a tile: 6 x 4 sums, 4 keys and a component fill 29 of 32 AVX-512 registers. In plain C++ one.
template <class V>
constexpr int TILE = alignof(V) >= 16 ? 6 : 1;

// Vectors side by side in a tile: four where a vector is one register (it is aligned to its size), else one.
template <class V>
constexpr int TILE_WIDTH = alignof(V) == 64 ? 4 : 1;

struct Queries {
    int count;
    const float* q[QUERIES];
    float* out[QUERIES];
    int64_t first[QUERIES], last[QUERIES];      // positions seen, both included
    int begin[QUERIES], end[QUERIES];           // keys seen of the block at hand; begin = end: none
    alignas(64) float peak[QUERIES], total[QUERIES], correction[QUERIES];
    alignas(64) float p[QUERIES][TERCET_KEY_BLOCK]; // scores, then weights
};

// Calls f(Count<n>()) for n in 1..Most.
template <int N>
struct Count {
    static constexpr int value = N;
};

template <int Most, class F>
void with_count(int n, F&& f) {
    if constexpr (Most == 1) f(Count<1>());
    else if (n == Most) f(Count<Most>());
    else with_count<Most - 1>(n, f);
}

// p[i][0 .. 16*W) of queries i of a tile, over `dims` dimensions, going on from `p` unless `fresh`. `ahead`: memory
// that is wanted next, prefetched at the pace of the keys.
template <class V, int Q, int W, class T>
void score_tile(const T* keys, const float* const* q, int32_t begin, int32_t dims, bool fresh,
                float (*p)[TERCET_KEY_BLOCK], const T* ahead) {
    V s[Q][W];
    const float* x[Q];
    for (int i = 0; i < Q; i++) {
        x[i] = q[i] + begin;
        for (int j = 0; j < W; j++) s[i][j] = fresh ? V::zero() : V::load(p[i] + 16 * j);
    }
    for (int32_t d = 0; d < dims; d++) {
        V k[W];
        for (int j = 0; j < W; j++) k[j] = V::load(keys + (int64_t)d * TERCET_KEY_BLOCK + 16 * j);
        if (sizeof(T) < 4)
            for (int b = 0; b < (int)(16 * W * sizeof(T)); b += 64)
                __builtin_prefetch((const char*)(ahead + (int64_t)d * TERCET_KEY_BLOCK) + b);
#pragma GCC unroll 8
        for (int i = 0; i < Q; i++) {
            const V component = V::set(x[i][d]);
#pragma GCC unroll 4
            for (int j = 0; j < W; j++) s[i][j] = fma(component, k[j], s[i][j]);
        }
    }
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < W; j++) s[i][j].store(p[i] + 16 * j);
}

// out[i][0 .. 16*W) = out*correction + p.v over keys begin .. end, whose values lie `stride` apart. W = 1: `lanes`.
template <class V, int Q, int W, class T>
void value_tile(const T* values, int64_t stride, const float (*p)[TERCET_KEY_BLOCK], int begin, int end,
                const float* correction, float* const* out, int64_t offset, int lanes, const T* ahead) {
    V o[Q][W];
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < W; j++)
            o[i][j] = (W > 1 ? V::load(out[i] + offset + 16 * j) : load_lanes<V>(out[i] + offset, lanes)) *
                      V::set(correction[i]);
    for (int key = begin; key < end; key++) {
        const T* row = values + key * stride;
        V v[W];
        for (int j = 0; j < W; j++) v[j] = W > 1 ? V::load(row + 16 * j) : load_lanes<V>(row, lanes);
        if (sizeof(T) < 4)
            for (int b = 0; b < (int)(16 * W * sizeof(T)); b += 64)
                __builtin_prefetch((const char*)(ahead + (int64_t)key * 16 * W) + b);
#pragma GCC unroll 8
        for (int i = 0; i < Q; i++) {
            const V weight = V::set(p[i][key]);
#pragma GCC unroll 4
            for (int j = 0; j < W; j++) o[i][j] = fma(weight, v[j], o[i][j]);
        }
    }
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < W; j++) {
            if (W > 1) o[i][j].store(out[i] + offset + 16 * j);
            else store_lanes(o[i][j], out[i] + offset, lanes);
        }
}

// The keys that queries first .. first+count see between them; begin >= end: none.
static inline void seen_by(const Queries& s, int first, int count, int* begin, int* end) {
    *begin = TERCET_KEY_BLOCK;
    *end = 0;
    for (int i = first; i < first + count; i++) {
        if (s.begin[i] >= s.end[i]) continue;
        *begin = s.begin[i] < *begin ? s.begin[i] : *begin;
        *end = s.end[i] > *end ? s.end[i] : *end;
    }
}

template <class V, class T>
void score_queries(Queries& s, const T* keys, int32_t begin, int32_t dims, const T* ahead) {
    constexpr int W = TILE_WIDTH<V>;
    for (int first = 0; first < s.count; first += TILE<V>) {
        const int count = s.count - first < TILE<V> ? s.count - first : TILE<V>;
        int low, high;
        seen_by(s, first, count, &low, &high);
        if (low >= high) continue;
        with_count<TILE<V>>(count, [&](auto n) {
            for (int j = low / (16 * W); j * 16 * W < high; j++)
                score_tile<V, decltype(n)::value, W>(
                    keys + 16 * W * j, s.q + first, begin, dims, begin == 0,
                    (float(*)[TERCET_KEY_BLOCK])(s.p[first] + 16 * W * j), ahead + 16 * W * j);
        });
    }
}

template <class V, class T>
void add_values(Queries& s, const T* values, int64_t stride, int32_t begin, int32_t dims, const T* ahead) {
    constexpr int W = TILE_WIDTH<V>;
    for (int first = 0; first < s.count; first += TILE<V>) {
        const int count = s.count - first < TILE<V> ? s.count - first : TILE<V>;
        int low, high;
        seen_by(s, first, count, &low, &high);
        if (low >= high) continue;
        with_count<TILE<V>>(count, [&](auto n) {
            constexpr int Q = decltype(n)::value;
            int32_t d = 0;
            for (; d + 16 * W <= dims; d += 16 * W)
                value_tile<V, Q, W>(values + d, stride, s.p + first, low, high, s.correction + first, s.out + first,
                                    begin + d, 16, ahead + d * TERCET_KEY_BLOCK);
            for (; d < dims; d += 16)
                value_tile<V, Q, 1>(values + d, stride, s.p + first, low, high, s.correction + first, s.out + first,
                                    begin + d, lanes_left(dims, d), ahead + d * TERCET_KEY_BLOCK);
        });
    }
}

struct Bounds { // 64 of -inf, 64 of inf, 64 of -inf: from [64 - n] on n lanes are hidden, from [128 - n] on n are not
    float v[3 * TERCET_KEY_BLOCK];
    constexpr Bounds() : v() {
        for (int i = 0; i < 3 * TERCET_KEY_BLOCK; i++)
            v[i] = i / TERCET_KEY_BLOCK == 1 ? __builtin_inff() : -__builtin_inff();
    }
};
constexpr Bounds BOUNDS;

// Scores of one query scaled, those of unseen keys -inf. Returns the highest.
template <class V>
float finish_scores(float* p, const float* key_scale, float scale, int begin, int end) {
    V s[4];
    for (int j = 0; j < 4; j++) {
        s[j] = V::load(p + 16 * j);
        if (key_scale) s[j] = s[j] * V::load(key_scale + 16 * j);
        s[j] = s[j] * V::set(scale);
        if (begin > 0) s[j] = min(s[j], V::load(BOUNDS.v + TERCET_KEY_BLOCK - begin + 16 * j));
        if (end < TERCET_KEY_BLOCK) s[j] = min(s[j], V::load(BOUNDS.v + 2 * TERCET_KEY_BLOCK - end + 16 * j));
        s[j].store(p + 16 * j);
    }
    return max(max(s[0], s[1]), max(s[2], s[3])).max();
}

// Scores to weights p, and what this block does to what came before: correction, peak, total.
template <class V>
void soften(Queries& s, const float* key_scale, const float* value_scale, float scale) {
    alignas(64) float next[QUERIES];
    for (int i = 0; i < s.count; i++) {
        next[i] = s.peak[i];
        if (s.begin[i] >= s.end[i]) continue;
        const float highest = finish_scores<V>(s.p[i], key_scale, scale, s.begin[i], s.end[i]);
        if (highest > next[i]) next[i] = highest;
    }
    for (int i = 0; i < s.count; i += 16)
        exp_negative(V::load(s.peak + i, lanes_left(s.count, i)) - V::load(next + i, lanes_left(s.count, i)))
            .store(s.correction + i, lanes_left(s.count, i));
    for (int i = 0; i < s.count; i++) {
        float* p = s.p[i];
        if (s.begin[i] >= s.end[i]) {
            s.correction[i] = 1.0f;
            memset(p, 0, sizeof s.p[i]);
            continue;
        }
        s.peak[i] = next[i];
        V w[4];
        for (int j = 0; j < 4; j++) w[j] = exp_negative(V::load(p + 16 * j) - V::set(next[i]));
        s.total[i] = __builtin_fmaf(s.total[i], s.correction[i], ((w[0] + w[1]) + (w[2] + w[3])).sum());
        for (int j = 0; j < 4; j++) (value_scale ? w[j] * V::load(value_scale + 16 * j) : w[j]).store(p + 16 * j);
    }
}

// One block for all queries. Many of them: keys and values are converted to float first, a slice at a time.
template <class V, class T>
void attend_block(const tercet_attention* a, const KvBlock<V, T>& block, const T* ahead, Queries& s) {
    constexpr bool int8 = sizeof(T) == 1;
    const int32_t dim = a->head_dim;
    const float *key_scale = int8 ? block.key_scale : nullptr, *value_scale = int8 ? block.value_scale : nullptr;
    if (s.count <= TILE<V> || sizeof(T) == 4) {
        score_queries<V>(s, block.keys, 0, dim, block.values);
        soften<V>(s, key_scale, value_scale, a->scale);
        return add_values<V>(s, block.values, dim, 0, dim, ahead);
    }
    alignas(64) float slice[SLICE * TERCET_KEY_BLOCK];
    for (int32_t d = 0; d < dim; d += SLICE) {
        const int32_t dims = dim - d < SLICE ? dim - d : SLICE;
        for (int32_t i = 0; i < dims * TERCET_KEY_BLOCK; i += 16)
            V::load(block.keys + (int64_t)d * TERCET_KEY_BLOCK + i).store(slice + i);
        score_queries<V>(s, slice, d, dims, slice);
    }
    soften<V>(s, key_scale, value_scale, a->scale);
    int low, high;
    seen_by(s, 0, s.count, &low, &high);
    for (int32_t d = 0; d < dim; d += SLICE) {
        const int32_t dims = dim - d < SLICE ? dim - d : SLICE;
        for (int key = low; key < high; key++)
            for_lanes<V>(dims, [&](int64_t i, int lanes) {
                load_lanes<V>(block.values + (int64_t)key * dim + d + i, lanes).store(slice + key * SLICE + i);
            });
        add_values<V>(s, slice, SLICE, d, dims, slice);
    }
}

template <class V, class T>
void attend(const tercet_attention* a, const tercet_kv* kv, int32_t kv_head, Queries& s) {
    int64_t first = s.first[0], last = s.last[0];
    for (int i = 0; i < s.count; i++) {
        first = s.first[i] < first ? s.first[i] : first;
        last = s.last[i] > last ? s.last[i] : last;
        s.peak[i] = -__builtin_inff();
        s.total[i] = 0.0f;
        memset(s.out[i], 0, (size_t)a->head_dim * sizeof(float));
    }
    for (int64_t index = first / TERCET_KEY_BLOCK; index <= last / TERCET_KEY_BLOCK; index++) {
        const int64_t base = index * TERCET_KEY_BLOCK;
        for (int i = 0; i < s.count; i++) {
            const int64_t begin = s.first[i] - base, end = s.last[i] - base + 1;
            s.begin[i] = begin < 0 ? 0 : begin < TERCET_KEY_BLOCK ? (int)begin : TERCET_KEY_BLOCK;
            s.end[i] = end < 0 ? 0 : end < TERCET_KEY_BLOCK ? (int)end : TERCET_KEY_BLOCK;
        }
        const KvBlock<V, T> block(kv, a->head_dim, kv_head, index);
        attend_block<V, T>(a, block, (const T*)((const char*)block.keys + kv->block_stride), s);
    }
    for (int i = 0; i < s.count; i++)
        for_lanes<V>(a->head_dim, [&](int64_t d, int lanes) {
            store_lanes(load_lanes<V>(s.out[i] + d, lanes) / V::set(s.total[i]) + V::zero(), s.out[i] + d, lanes);
        });
}

template <class V>
void attention(const tercet_attention* a, const tercet_kv* kv, const float* q, float* out, int32_t n, int64_t position,
               int32_t head, int32_t heads) {
    const int32_t kv_head = head / (a->heads / a->kv_heads);
    const int64_t total = (int64_t)n * heads;
    Queries s;
    for (int64_t begin = 0; begin < total; begin += QUERIES) {
        s.count = total - begin < QUERIES ? (int)(total - begin) : QUERIES;
        for (int i = 0; i < s.count; i++) {
            const int64_t token = (begin + i) / heads, query = head + (begin + i) % heads;
            const int64_t at = (token * a->heads + query) * a->head_dim;
            s.q[i] = q + at;
            s.out[i] = out + at;
            s.last[i] = a->keys ? a->keys - 1 : position + token;
            s.first[i] = a->window > 0 && s.last[i] >= a->window ? s.last[i] - a->window + 1 : 0;
        }
        switch (kv->type) {
        case TERCET_KV_F16: attend<V, uint16_t>(a, kv, kv_head, s); break;
        case TERCET_KV_F32: attend<V, float>(a, kv, kv_head, s); break;
        default: attend<V, int8_t>(a, kv, kv_head, s);
        }
    }
}

} // namespace tercet
#endif
