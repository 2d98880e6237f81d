// What training does to a weight matrix at every step, once through memory each way; the meaning is that of
// tercet/quantizers/learned.py, bit for bit.
//
//   forward    T = nearest level of w - gamma,  Q = alpha T + gamma, in float32 or rounded to bfloat16
//   backward   dw = dQ,  dalpha = sum dQ T,  dgamma = sum dQ, over each group
#ifndef TERCET_LEVELS_H
#define TERCET_LEVELS_H

#include <stdint.h>
#include <string.h>

#include <limits>

// Loops of plain C++, compiled for what most CPUs have: the wider one is chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define TERCET_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TERCET_CLONES
#endif

namespace tercet {

struct Levels {
    const float* scale; // [rows, groups], >= 0, values of float16
    const float* shift; // likewise, or null
    int64_t rows, cols, groups;
    bool binary;
};

inline uint16_t to_bfloat16(float x) { // finite; to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_bfloat16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline void store(float* place, float value) { *place = value; }
inline void store(uint16_t* place, float value) { *place = to_bfloat16(value); }
inline float load(const float* place) { return *place; }
inline float load(const uint16_t* place) { return from_bfloat16(*place); }

template <class Value>
inline void forward_group(const float* w, float scale, float shift, bool shifted, bool binary, int64_t n, int8_t* codes,
                          Value* values) {
    const float half = scale > 0 ? scale * 0.5f : std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < n; i++) {
        const float x = shifted ? w[i] - shift : w[i];
        const int code = binary ? (x >= 0 ? 1 : -1) : (int)(x > half) - (int)(x < -half);
        codes[i] = (int8_t)code;
        float value = (float)code * scale;
        if (shifted) value += shift;
        store(values + i, value + 0.0f); // no -0.0
    }
}

template <class Value>
inline void forward_all(const Levels& levels, const float* w, int8_t* codes, Value* values) {
    const int64_t each = levels.cols / levels.groups;
    for (int64_t g = 0; g < levels.rows * levels.groups; g++) {
        const bool shifted = levels.shift != nullptr;
        forward_group(w + g * each, levels.scale[g], shifted ? levels.shift[g] : 0.0f, shifted, levels.binary, each,
                      codes + g * each, values + g * each);
    }
}

template <class Value>
inline void backward_all(int64_t groups, int64_t each, const Value* gradient, const int8_t* codes, float* weight,
                         float* scale, float* shift) {
    const int64_t LANES = 16;
    for (int64_t g = 0; g < groups; g++) {
        float towards[LANES] = {}, sum[LANES] = {};
        int64_t i = g * each;
        const int64_t end = i + each;
        for (; i + LANES <= end; i += LANES)
            for (int64_t lane = 0; lane < LANES; lane++) {
                const float value = load(gradient + i + lane);
                weight[i + lane] = value;
                towards[lane] += value * (float)codes[i + lane];
                sum[lane] += value;
            }
        for (; i < end; i++) {
            const float value = load(gradient + i);
            weight[i] = value;
            towards[0] += value * (float)codes[i];
            sum[0] += value;
        }
        for (int64_t lane = 1; lane < LANES; lane++) {
            towards[0] += towards[lane];
            sum[0] += sum[lane];
        }
        scale[g] = towards[0];
        if (shift) shift[g] = sum[0];
    }
}

} // namespace tercet
#endif
