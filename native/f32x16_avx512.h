// Sixteen float lanes in one AVX-512 register. The meaning of each operation is f32x16_scalar.h's.
#ifndef TERCET_F32X16_AVX512_H
#define TERCET_F32X16_AVX512_H

#include <immintrin.h>
#include <stdint.h>

namespace tercet::avx512vnni {

inline __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1u); }

struct f32x16 {
    __m512 v;

    static f32x16 set(float x) { return {_mm512_set1_ps(x)}; }
    static f32x16 zero() { return {_mm512_setzero_ps()}; }
    static f32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static f32x16 load(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
    static f32x16 load(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
    static f32x16 load(const uint16_t* p, int n) {
        return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p))};
    }
    static f32x16 load(const int8_t* p) { return of_bytes(_mm_loadu_si128((const __m128i*)p)); }
    static f32x16 load(const int8_t* p, int n) { return of_bytes(_mm_maskz_loadu_epi8(first_lanes(n), p)); }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
    void store(float* p, int n) const { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
    void store(uint16_t* p) const { _mm256_storeu_si256((__m256i*)p, half()); }
    void store(uint16_t* p, int n) const { _mm256_mask_storeu_epi16(p, first_lanes(n), half()); }
    void store(int8_t* p) const { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))); }

    f32x16 head(int n) const { return {_mm512_maskz_mov_ps(first_lanes(n), v)}; }
    f32x16 abs() const { return {_mm512_abs_ps(v)}; }
    f32x16 operator-() const { return {_mm512_xor_ps(v, _mm512_set1_ps(-0.0f))}; }
    f32x16 sign_of(f32x16 s) const { return {_mm512_or_ps(v, _mm512_and_ps(s.v, _mm512_set1_ps(-0.0f)))}; }
    f32x16 shifted_left_23() const {
        return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 23))};
    }
    template <int h>
    f32x16 butterfly() const {
        const __m512 other = h == 1   ? _mm512_permute_ps(v, 0xb1)
                             : h == 2 ? _mm512_permute_ps(v, 0x4e)
                             : h == 4 ? _mm512_shuffle_f32x4(v, v, 0xb1)
                                      : _mm512_shuffle_f32x4(v, v, 0x4e);
        constexpr __mmask16 upper = h == 1 ? 0xaaaa : h == 2 ? 0xcccc : h == 4 ? 0xf0f0 : 0xff00;
        return {_mm512_mask_sub_ps(_mm512_add_ps(v, other), upper, other, v)};
    }
    float sum() const {
        const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
        return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
    }
    float max() const { return _mm512_reduce_max_ps(v); }

  private:
    static f32x16 of_bytes(__m128i bytes) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))}; }
    __m256i half() const { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
};

inline f32x16 operator+(f32x16 a, f32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline f32x16 operator-(f32x16 a, f32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline f32x16 operator*(f32x16 a, f32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline f32x16 operator/(f32x16 a, f32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline f32x16 max(f32x16 a, f32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline f32x16 min(f32x16 a, f32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline f32x16 select_less(f32x16 a, f32x16 b, f32x16 yes, f32x16 no) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}

} // namespace tercet::avx512vnni
#endif
