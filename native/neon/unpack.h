// A tile's codes as signed bytes, the form in which sdot multiplies them: what all products share. sdot takes both
// sides signed, so that an int8 weight needs no offset, and a byte of a weight must stay below 128.
#ifndef TERCET_NEON_UNPACK_H
#define TERCET_NEON_UNPACK_H

#include <arm_neon.h>

#include "../backends.h"

namespace tercet::neon {

#define TERCET_INLINE static inline __attribute__((always_inline))

// What is taken off for each activation.
template <class Format>
constexpr int OFFSET = Format::bits == 8 ? 0 : Format::offset;

// Bytes of the four columns 4S .. 4S+3 in a quarter (four rows) of a tile.
template <class Format, int S>
TERCET_INLINE int8x16_t unpack(uint8x16_t rows) {
    constexpr int up = Format::factor == 2 ? 1 : 0; // the factor 2 is one place more to the left
    constexpr int right = Format::bits * S - up;
    if constexpr (right < 0) rows = vshlq_n_u8(rows, 1);
    if constexpr (right > 0) rows = vshrq_n_u8(rows, right);
    if constexpr (right + Format::bits < 8) rows = vandq_u8(rows, vdupq_n_u8((uint8_t)(Format::mask << up)));
    return vreinterpretq_s8_u8(rows);
}

// Sixteen activations, or as many as a narrower tile has columns: lane s holds those of columns 4s .. 4s+3.
template <int Columns>
TERCET_INLINE int8x16_t load_quads(const int8_t* x) {
    if constexpr (Columns >= 16) return vld1q_s8(x);
    if constexpr (Columns == 8) return vcombine_s8(vld1_s8(x), vdup_n_s8(0));
    int32_t quad;
    memcpy(&quad, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(quad));
}

// f(Slot<0>()) ... f(Slot<Count - 1>()): sdot's lane and a shift must be constants.
template <int S>
struct Slot {
    static constexpr int value = S;
};

template <int Count, int S = 0, class F>
TERCET_INLINE void for_slots(F&& f) {
    f(Slot<S>());
    if constexpr (S + 1 < Count) for_slots<Count, S + 1>(f);
}

} // namespace tercet::neon
#endif
