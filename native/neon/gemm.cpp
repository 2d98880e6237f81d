// The micro-kernel of gemm.h: 16 rows of signed weights times N tokens of signed activations.
#include "gemm.h"

#include "product.h"

namespace tercet::neon {
namespace {

// 4*Steps columns from x and weights on.
template <int N, int Steps>
TERCET_INLINE void add_columns(int32x4_t (&sums)[N][QUARTERS], const int8_t (*weights)[TILE_BYTES], const int8_t* x,
                               int64_t stride) {
    int8x16_t quads[N];
#pragma GCC unroll 6
    for (int t = 0; t < N; t++) quads[t] = load_quads<4 * Steps>(x + t * stride);
    for_slots<Steps>([&](auto slot) __attribute__((always_inline)) {
        constexpr int s = decltype(slot)::value;
#pragma GCC unroll 4
        for (int i = 0; i < QUARTERS; i++) {
            const int8x16_t bytes = vld1q_s8(weights[s] + 16 * i);
#pragma GCC unroll 6
            for (int t = 0; t < N; t++) sums[t][i] = vdotq_laneq_s32(sums[t][i], bytes, quads[t], s);
        }
    });
}

template <int N>
void block(Panel& p, int32_t token, int slot) {
    const int64_t stride = p.x->stride;
    const int8_t* x = p.x->codes + token * stride + p.column;
    int32x4_t sums[N][QUARTERS];
    for (int t = 0; t < N; t++)
        for (int i = 0; i < QUARTERS; i++)
            sums[t][i] = p.first ? vdupq_n_s32(-p.offset * p.x->sum[(int64_t)(token + t) * p.w->groups + p.group])
                                 : vld1q_s32(p.partial[slot + t] + 4 * i);
    int q = 0;
    for (; q + 4 <= p.quads; q += 4) add_columns<N, 4>(sums, p.weights + q, x + 4 * q, stride);
    for (; q < p.quads; q++) add_columns<N, 1>(sums, p.weights + q, x + 4 * q, stride);
    for (int t = 0; t < N; t++) {
        float* acc = p.acc[slot + t];
        if (p.last) scale_group(p.w, p.x, p.tile, p.group, token + t, sums[t], f32x16::load(acc)).store(acc);
        else
            for (int i = 0; i < QUARTERS; i++) vst1q_s32(p.partial[slot + t] + 4 * i, sums[t][i]);
    }
}

} // namespace

void multiply(Panel& p, int tokens, int32_t token, int slot) {
    static constexpr void (*blocks[BLOCK])(Panel&, int32_t, int) = {block<1>, block<2>, block<3>,
                                                                    block<4>, block<5>, block<6>};
    blocks[tokens - 1](p, token, slot);
}

void store_panel(const Panel& p, int tokens, int32_t token, const float* bias, float* y, int64_t y_stride) {
    for (int t = 0; t < tokens; t++)
        store_rows(p.w, p.tile, bias, f32x16::load(p.acc[t]), y + (token + t) * y_stride);
}

} // namespace tercet::neon
