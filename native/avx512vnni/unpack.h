// A tile's codes as bytes, the form in which vpdpbusd multiplies them: what all products share.
#ifndef TERCET_AVX512VNNI_UNPACK_H
#define TERCET_AVX512VNNI_UNPACK_H

#include <immintrin.h>

#include "../backends.h"

// Arrays of registers stay registers only where every function on the way is inlined and every loop unrolled.
#define TERCET_INLINE inline __attribute__((always_inline))

namespace tercet::avx512vnni {

// Unsigned bytes factor*(code ^ flip) of the four columns 4s .. 4s+3 of a tile.
template <class Format>
static inline __m512i unpack(__m512i tile, int s) {
    if constexpr (Format::bits == 8) return _mm512_xor_si512(tile, _mm512_set1_epi8((char)Format::flip));
    constexpr int up = Format::factor == 2 ? 1 : 0; // the factor 2 is one place more to the left
    const __m512i mask = _mm512_set1_epi8((char)(Format::mask << up));
    const int right = Format::bits * s - up;
    return _mm512_and_si512(right < 0 ? _mm512_slli_epi32(tile, 1) : _mm512_srli_epi32(tile, (unsigned)right), mask);
}

// Four activations to every lane.
static inline __m512i broadcast4(const int8_t* p) {
    int32_t quad;
    memcpy(&quad, p, 4);
    return _mm512_set1_epi32(quad);
}

} // namespace tercet::avx512vnni
#endif
