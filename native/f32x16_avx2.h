// Sixteen float lanes in two AVX2 registers (with FMA and F16C). The meaning of each operation is f32x16_scalar.h's.
#ifndef TERCET_F32X16_AVX2_H
#define TERCET_F32X16_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace tercet::avx2 {

inline __m256i lane_mask(int n) { // all ones in lanes below n
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

struct f32x16 {
    __m256 lo, hi;

    static f32x16 set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static f32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static f32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static f32x16 load(const float* p, int n) {
        return {_mm256_maskload_ps(p, lane_mask(n)), _mm256_maskload_ps(p + 8, lane_mask(n - 8))};
    }
    static f32x16 load(const uint16_t* p) {
        return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
    }
    static f32x16 load(const uint16_t* p, int n) {
        uint16_t t[16] = {0};
        memcpy(t, p, (size_t)n * 2);
        return load(t);
    }
    static f32x16 load(const int8_t* p) {
        const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
        return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
    }
    static f32x16 load(const int8_t* p, int n) {
        int8_t t[16] = {0};
        memcpy(t, p, (size_t)n);
        return load(t);
    }
    void store(float* p) const {
        _mm256_storeu_ps(p, lo);
        _mm256_storeu_ps(p + 8, hi);
    }
    void store(float* p, int n) const {
        _mm256_maskstore_ps(p, lane_mask(n), lo);
        _mm256_maskstore_ps(p + 8, lane_mask(n - 8), hi);
    }
    void store(uint16_t* p) const {
        _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        _mm_storeu_si128((__m128i*)(p + 8), _mm256_cvtps_ph(hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    void store(uint16_t* p, int n) const {
        uint16_t t[16];
        store(t);
        memcpy(p, t, (size_t)n * 2);
    }
    void store(int8_t* p) const {
        const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(lo), _mm256_cvtps_epi32(hi));
        const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8); // packs works within 128-bit halves
        _mm_storeu_si128((__m128i*)p,
                         _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
    }

    f32x16 head(int n) const {
        return {_mm256_and_ps(lo, _mm256_castsi256_ps(lane_mask(n))),
                _mm256_and_ps(hi, _mm256_castsi256_ps(lane_mask(n - 8)))};
    }
    f32x16 abs() const {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_andnot_ps(sign, lo), _mm256_andnot_ps(sign, hi)};
    }
    f32x16 operator-() const {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_xor_ps(lo, sign), _mm256_xor_ps(hi, sign)};
    }
    f32x16 sign_of(f32x16 s) const {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_or_ps(lo, _mm256_and_ps(s.lo, sign)), _mm256_or_ps(hi, _mm256_and_ps(s.hi, sign))};
    }
    f32x16 shifted_left_23() const {
        return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(lo), 23)),
                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(hi), 23))};
    }
    template <int h>
    f32x16 butterfly() const {
        if constexpr (h == 8) return {_mm256_add_ps(lo, hi), _mm256_sub_ps(lo, hi)};
        else return {pairs<h>(lo), pairs<h>(hi)};
    }
    float sum() const {
        const __m256 a = _mm256_add_ps(lo, hi);
        const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
        return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
    }
    float max() const {
        const __m256 a = _mm256_max_ps(lo, hi);
        const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
        return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
    }

  private:
    template <int h>
    static __m256 pairs(__m256 x) {
        const __m256 other = h == 1   ? _mm256_permute_ps(x, 0xb1)
                             : h == 2 ? _mm256_permute_ps(x, 0x4e)
                                      : _mm256_permute2f128_ps(x, x, 1);
        constexpr int upper = h == 1 ? 0xaa : h == 2 ? 0xcc : 0xf0;
        return _mm256_blend_ps(_mm256_add_ps(x, other), _mm256_sub_ps(other, x), upper);
    }
};

inline f32x16 operator+(f32x16 a, f32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline f32x16 operator-(f32x16 a, f32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline f32x16 operator*(f32x16 a, f32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline f32x16 operator/(f32x16 a, f32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline f32x16 max(f32x16 a, f32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline f32x16 min(f32x16 a, f32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 yes, f32x16 no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
            _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}

} // namespace tercet::avx2
#endif
