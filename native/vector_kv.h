// The KV cache over V: where a block of 64 positions lies, and how a token's key and value are stored in it.
//   f16, f32: rounded to the type
//   i8: codes and scale of each head's key and value as `quantize` makes them of one group; not finite: scale NaN
#ifndef TERCET_VECTOR_KV_H
#define TERCET_VECTOR_KV_H

#include "vector_ops.h"

namespace tercet {

// 64 positions of one KV head. Keys [head_dim][64]: a lane is a key; values [64][head_dim]: a lane is a dimension.
template <class V, class T> // V: so that no instruction set shares another's functions
struct KvBlock {
    T *keys, *values;
    float *key_scale, *value_scale; // [64], of int8 only

    KvBlock(const tercet_kv* kv, int32_t head_dim, int32_t head, int64_t block)
        : keys((T*)((char*)kv->blocks + block * kv->block_stride + head * kv->head_stride)),
          values(keys + (int64_t)head_dim * TERCET_KEY_BLOCK),
          key_scale((float*)(values + (int64_t)head_dim * TERCET_KEY_BLOCK)),
          value_scale(key_scale + TERCET_KEY_BLOCK) {}
};

// Of x[dim]: body(i, lanes, v) with what is stored for elements i and up. Returns the scale of int8.
template <class V, class T, class F>
float stored_lanes(const float* x, int32_t dim, F&& body) {
    float factor = 0.0f, scale = 0.0f;
    if (sizeof(T) == 1 && !group_scale<V>(x, dim, &scale, &factor)) scale = __builtin_nanf("");
    const V multiplier = V::set(factor), round = V::set(0x1.8p23f);
    for_lanes<V>(dim, [&](int64_t i, int lanes) {
        const V v = load_lanes<V>(x + i, lanes);
        body(i, lanes, sizeof(T) == 1 ? (v * multiplier + round) - round : v);
    });
    return scale;
}

template <class V, class T>
void store_kv(const tercet_kv* kv, const float* k, const float* v, int32_t kv_heads, int32_t head_dim,
              int64_t position) {
    const int64_t at = position % TERCET_KEY_BLOCK;
    for (int32_t h = 0; h < kv_heads; h++, k += head_dim, v += head_dim) {
        const KvBlock<V, T> block(kv, head_dim, h, position / TERCET_KEY_BLOCK);
        T lane[16];
        const float key_scale = stored_lanes<V, T>(k, head_dim, [&](int64_t i, int lanes, V x) {
            x.store(lane);
            for (int j = 0; j < lanes; j++) block.keys[(i + j) * TERCET_KEY_BLOCK + at] = lane[j];
        });
        const float value_scale = stored_lanes<V, T>(v, head_dim, [&](int64_t i, int lanes, V x) {
            x.store(lane);
            memcpy(block.values + at * head_dim + i, lane, (size_t)lanes * sizeof(T));
        });
        if (sizeof(T) > 1) continue;
        block.key_scale[at] = key_scale;
        block.value_scale[at] = value_scale;
    }
}

template <class V>
void kv_store(const tercet_kv* kv, const float* k, const float* v, int32_t kv_heads, int32_t head_dim,
              int64_t position) {
    switch (kv->type) {
    case TERCET_KV_F16: return store_kv<V, uint16_t>(kv, k, v, kv_heads, head_dim, position);
    case TERCET_KV_F32: return store_kv<V, float>(kv, k, v, kv_heads, head_dim, position);
    default: return store_kv<V, int8_t>(kv, k, v, kv_heads, head_dim, position);
    }
}

} // namespace tercet
#endif
