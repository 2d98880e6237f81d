// Sixteen float lanes in four NEON registers. The meaning of each operation is f32x16_scalar.h's.
#ifndef TERCET_F32X16_NEON_H
#define TERCET_F32X16_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

namespace tercet::neon {

struct f32x16 {
    float32x4_t v[4];

    template <class F>
    static inline __attribute__((always_inline)) f32x16 make(F&& quarter) {
        return {{quarter(0), quarter(1), quarter(2), quarter(3)}};
    }
    static f32x16 set(float x) {
        return make([=](int) { return vdupq_n_f32(x); });
    }
    static f32x16 zero() { return set(0.0f); }
    static f32x16 load(const float* p) {
        return make([=](int i) { return vld1q_f32(p + 4 * i); });
    }
    static f32x16 load(const float* p, int n) {
        float t[16] = {0};
        memcpy(t, p, (size_t)n * 4);
        return load(t);
    }
    static f32x16 load(const uint16_t* p) {
        return make([=](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
    }
    static f32x16 load(const uint16_t* p, int n) {
        uint16_t t[16] = {0};
        memcpy(t, p, (size_t)n * 2);
        return load(t);
    }
    static f32x16 load(const int8_t* p) {
        const int8x16_t bytes = vld1q_s8(p);
        const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
        return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                 vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
    }
    static f32x16 load(const int8_t* p, int n) {
        int8_t t[16] = {0};
        memcpy(t, p, (size_t)n);
        return load(t);
    }
    void store(float* p) const {
        for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, v[i]);
    }
    void store(float* p, int n) const {
        float t[16];
        store(t);
        memcpy(p, t, (size_t)n * 4);
    }
    void store(uint16_t* p) const {
        for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v[i])));
    }
    void store(uint16_t* p, int n) const {
        uint16_t t[16];
        store(t);
        memcpy(p, t, (size_t)n * 2);
    }
    void store(int8_t* p) const {
        const int16x8_t low = vcombine_s16(rounded(v[0]), rounded(v[1]));
        const int16x8_t high = vcombine_s16(rounded(v[2]), rounded(v[3]));
        vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }

    f32x16 head(int n) const {
        float t[16];
        store(t);
        return load(t, n);
    }
    f32x16 abs() const {
        return make([&](int i) { return vabsq_f32(v[i]); });
    }
    f32x16 operator-() const {
        return make([&](int i) { return vnegq_f32(v[i]); });
    }
    f32x16 sign_of(f32x16 s) const {
        return make([&](int i) { return vbslq_f32(vdupq_n_u32(0x80000000u), s.v[i], v[i]); });
    }
    f32x16 shifted_left_23() const {
        return make([&](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(v[i]), 23)); });
    }
    template <int h>
    f32x16 butterfly() const {
        if constexpr (h == 8)
            return {{vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]), vsubq_f32(v[0], v[2]), vsubq_f32(v[1], v[3])}};
        else if constexpr (h == 4)
            return {{vaddq_f32(v[0], v[1]), vsubq_f32(v[0], v[1]), vaddq_f32(v[2], v[3]), vsubq_f32(v[2], v[3])}};
        else return make([&](int i) { return pairs<h>(v[i]); });
    }
    float sum() const {
        const float32x4_t a = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
        return vpadds_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)));
    }
    float max() const { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[2]), vmaxq_f32(v[1], v[3]))); }

private:
    template <int h>
    static float32x4_t pairs(float32x4_t x) {
        const float32x4_t other = h == 1 ? vrev64q_f32(x) : vextq_f32(x, x, 2);
        const float32x4_t sum = vaddq_f32(x, other), difference = vsubq_f32(other, x);
        if constexpr (h == 2) return vcombine_f32(vget_low_f32(sum), vget_high_f32(difference));
        else return vbslq_f32(vreinterpretq_u32_u64(vdupq_n_u64(0xffffffff00000000u)), difference, sum);
    }
    static int16x4_t rounded(float32x4_t x) { return vmovn_s32(vcvtnq_s32_f32(x)); }
};

inline f32x16 operator+(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline f32x16 operator-(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline f32x16 operator*(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline f32x16 operator/(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    return f32x16::make([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// Not vmaxq and vminq: those order the zeros and keep a NaN on either side.
inline f32x16 max(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline f32x16 min(f32x16 a, f32x16 b) {
    return f32x16::make([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 yes, f32x16 no) {
    return f32x16::make([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), yes.v[i], no.v[i]); });
}

} // namespace tercet::neon
#endif
