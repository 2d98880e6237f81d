// The micro-kernel of gemm.h: R row tiles of unsigned weights times N tokens of signed activations.
#include "gemm.h"

#include "../f32x16_avx512.h"

namespace tercet::avx512vnni {
namespace {

static inline __m512i broadcast4(const int8_t* p) {
    int32_t quad;
    memcpy(&quad, p, 4);
    return _mm512_set1_epi32(quad);
}

static inline __m512 load_scales(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }

// Turns integer products into floats: acc = fma(sx*alpha, D, acc), with a shift acc = fma(sx*gamma, S, acc).
template <int R, int N>
inline __attribute__((always_inline)) void scale_block(Panel& p, const __m512i (&sums)[N][R], int32_t token, int slot) {
    const tercet_matrix* w = p.w;
    const int64_t at = ((int64_t)p.tile * w->groups + p.group) * TERCET_ROWS, next = (int64_t)w->groups * TERCET_ROWS;
    const float* scale = p.x->scale + (int64_t)token * w->groups + p.group;
    __m512 alpha[R];
    for (int r = 0; r < R; r++) alpha[r] = load_scales(w->scale + at + r * next);
#pragma GCC unroll 12
    for (int t = 0; t < N; t++) {
        const __m512 sx = _mm512_set1_ps(scale[(int64_t)t * w->groups]);
#pragma GCC unroll 2
        for (int r = 0; r < R; r++) {
            const __m512 acc = _mm512_load_ps(p.acc[slot + t][r]), d = _mm512_cvtepi32_ps(sums[t][r]);
            _mm512_store_ps(p.acc[slot + t][r], _mm512_fmadd_ps(_mm512_mul_ps(sx, alpha[r]), d, acc));
        }
    }
    if (!w->shift) return;
    for (int r = 0; r < R; r++) {
        const __m512 gamma = load_scales(w->shift + at + r * next);
        for (int t = 0; t < N; t++) {
            const int64_t token_at = (int64_t)(token + t) * w->groups + p.group;
            const __m512 sx = _mm512_set1_ps(p.x->scale[token_at]), s = _mm512_set1_ps((float)p.x->sum[token_at]);
            float* acc = p.acc[slot + t][r];
            _mm512_store_ps(acc, _mm512_fmadd_ps(_mm512_mul_ps(sx, gamma), s, _mm512_load_ps(acc)));
        }
    }
}

template <int R, int N>
void block(Panel& p, int32_t token, int slot) {
    const int64_t stride = p.x->stride;
    const int8_t* x = p.x->codes + token * stride + p.column;
    __m512i sums[N][R];
    if (p.first) {
        const int32_t* sum = p.x->sum + (int64_t)token * p.w->groups + p.group;
#pragma GCC unroll 12
        for (int t = 0; t < N; t++) {
            const __m512i start = _mm512_set1_epi32(-p.offset * sum[(int64_t)t * p.w->groups]);
#pragma GCC unroll 2
            for (int r = 0; r < R; r++) sums[t][r] = start;
        }
    } else {
#pragma GCC unroll 12
        for (int t = 0; t < N; t++)
#pragma GCC unroll 2
            for (int r = 0; r < R; r++) sums[t][r] = _mm512_load_si512(p.partial[slot + t][r]);
    }
    const int8_t *x3 = x + 3 * stride, *x6 = x + 6 * stride, *x9 = x + 9 * stride;
    for (int q = 0; q < p.quads; q++, x += 4, x3 += 4, x6 += 4, x9 += 4) {
        __m512i weights[R];
#pragma GCC unroll 2
        for (int r = 0; r < R; r++) weights[r] = _mm512_load_si512(p.weights[q][r]);
#pragma GCC unroll 12
        for (int t = 0; t < N; t++) {
            const int8_t* base = t < 3 ? x : t < 6 ? x3 : t < 9 ? x6 : x9;
            const __m512i quad = broadcast4(base + t % 3 * stride);
#pragma GCC unroll 2
            for (int r = 0; r < R; r++) sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], weights[r], quad);
        }
    }
    if (p.last) return scale_block<R, N>(p, sums, token, slot);
#pragma GCC unroll 12
    for (int t = 0; t < N; t++)
#pragma GCC unroll 2
        for (int r = 0; r < R; r++) _mm512_store_si512(p.partial[slot + t][r], sums[t][r]);
}

using Block = void (*)(Panel&, int32_t, int);
template <int R>
constexpr Block blocks[BLOCK] = {block<R, 1>, block<R, 2>, block<R, 3>, block<R, 4>,  block<R, 5>,  block<R, 6>,
                                 block<R, 7>, block<R, 8>, block<R, 9>, block<R, 10>, block<R, 11>, block<R, 12>};

} // namespace

void multiply(Panel& p, int tiles, int tokens, int32_t token, int slot) {
    (tiles == 2 ? blocks<2> : blocks<1>)[tokens - 1](p, token, slot);
}

void store_panel(const Panel& p, int tiles, int tokens, int32_t token, const float* bias, float* y, int64_t y_stride) {
    for (int r = 0; r < tiles; r++) {
        const int32_t row = (p.tile + r) * TERCET_ROWS;
        const int lanes = p.w->rows - row < TERCET_ROWS ? p.w->rows - row : TERCET_ROWS;
        const f32x16 b = bias ? f32x16::load(bias + row, lanes) : f32x16::zero();
        for (int t = 0; t < tokens; t++) {
            const f32x16 acc = f32x16::load(p.acc[t][r]);
            (bias ? acc + b : acc).store(y + (token + t) * y_stride + row, lanes);
        }
    }
}

} // namespace tercet::avx512vnni
