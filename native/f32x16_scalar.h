// Sixteen float lanes in plain C++: the oracle of the vector type. Every operation here rounds exactly as the
// instruction of the same name in f32x16_avx2.h and f32x16_avx512.h.
#ifndef TERCET_F32X16_SCALAR_H
#define TERCET_F32X16_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace tercet::scalar {

inline uint32_t bits_of(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}

inline float float_of(uint32_t b) {
    float x;
    memcpy(&x, &b, 4);
    return x;
}

// IEEE half to float, exact; a NaN becomes quiet as vcvtph2ps makes it.
inline float half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
    if (exponent == 31) return float_of(sign | 0x7f800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0u));
    if (exponent == 0) { // mantissa * 2^-24, exact in float
        const float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// Float to half, to nearest even, subnormals included.
inline uint16_t float_to_half(float x) {
    const uint32_t b = bits_of(x), sign = (b >> 16) & 0x8000, magnitude = b & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
    if (magnitude >= 0x47800000) return (uint16_t)(sign | 0x7c00); // 65536 and up
    if (magnitude < 0x38800000) { // below 2^-14: the addition rounds to a multiple of 2^-24
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u));
    }
    const uint32_t odd = (magnitude >> 13) & 1;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfff + odd) >> 13));
}

struct f32x16 {
    float v[16];

    template <class F>
    static f32x16 make(F&& lane) {
        f32x16 r;
        for (int i = 0; i < 16; i++) r.v[i] = lane(i);
        return r;
    }
    static f32x16 set(float x) {
        return make([&](int) { return x; });
    }
    static f32x16 zero() { return set(0.0f); }
    static f32x16 load(const float* p) {
        return make([&](int i) { return p[i]; });
    }
    static f32x16 load(const float* p, int n) { // lanes n and up are 0
        return make([&](int i) { return i < n ? p[i] : 0.0f; });
    }
    static f32x16 load(const uint16_t* p) {
        return make([&](int i) { return half_to_float(p[i]); });
    }
    static f32x16 load(const uint16_t* p, int n) {
        return make([&](int i) { return i < n ? half_to_float(p[i]) : 0.0f; });
    }
    static f32x16 load(const int8_t* p) { return load(p, 16); }
    static f32x16 load(const int8_t* p, int n) {
        return make([&](int i) { return i < n ? (float)p[i] : 0.0f; });
    }
    void store(float* p) const { memcpy(p, v, sizeof v); }
    void store(float* p, int n) const { memcpy(p, v, (size_t)n * 4); }
    void store(uint16_t* p) const { store(p, 16); }
    void store(uint16_t* p, int n) const {
        for (int i = 0; i < n; i++) p[i] = float_to_half(v[i]);
    }
    // Rounds to nearest even; lanes must lie in -128..127 after it (others give some byte).
    void store(int8_t* p) const {
        for (int i = 0; i < 16; i++) p[i] = (int8_t)(bits_of(v[i] + 0x1.8p23f) & 0xff);
    }

    f32x16 head(int n) const { return load(v, n); }
    f32x16 abs() const {
        return make([&](int i) { return float_of(bits_of(v[i]) & 0x7fffffff); });
    }
    f32x16 operator-() const {
        return make([&](int i) { return float_of(bits_of(v[i]) ^ 0x80000000); });
    }
    f32x16 sign_of(f32x16 s) const { // |this| must be this
        return make([&](int i) { return float_of(bits_of(v[i]) | (bits_of(s.v[i]) & 0x80000000)); });
    }
    f32x16 shifted_left_23() const { // the bits
        return make([&](int i) { return float_of(bits_of(v[i]) << 23); });
    }
    // Lanes i and i + h (h = 1, 2, 4 or 8), by pairs: their sum in the lower, lower minus upper in the upper one.
    template <int h>
    f32x16 butterfly() const {
        return make([&](int i) { return i & h ? v[i - h] - v[i] : v[i] + v[i + h]; });
    }
    float sum() const {
        float t[16];
        memcpy(t, v, sizeof t);
        for (int half = 8; half >= 1; half /= 2)
            for (int i = 0; i < half; i++) t[i] = t[i] + t[i + half];
        return t[0];
    }
    float max() const {
        float m = v[0];
        for (int i = 1; i < 16; i++) m = v[i] > m ? v[i] : m;
        return m;
    }
};

inline f32x16 operator+(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return a.v[i] + b.v[i]; });
}
inline f32x16 operator-(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return a.v[i] - b.v[i]; });
}
inline f32x16 operator*(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return a.v[i] * b.v[i]; });
}
inline f32x16 operator/(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return a.v[i] / b.v[i]; });
}
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { // a * b + c, one rounding
    return f32x16::make([&](int i) { return ::fmaf(a.v[i], b.v[i], c.v[i]); });
}
// As vmaxps and vminps: b where either is NaN.
inline f32x16 max(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline f32x16 min(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 yes, f32x16 no) { // a < b ? yes : no
    return f32x16::make([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}

} // namespace tercet::scalar
#endif
