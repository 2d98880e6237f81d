// The packed formats as constants. A tile holds 16 rows; a row's 32 bits of it hold `columns` codes: byte j, bits
// bits*s and up, is column 4s+j. The weight's integer is factor*(code ^ flip) - offset, so that every kernel multiplies
// the unsigned byte factor*(code ^ flip) and subtracts offset times the activations' sum. t19 is of another kind.
// Functions are static: the linker must not share them between instruction sets.
#ifndef TERCET_FORMATS_H
#define TERCET_FORMATS_H

#include "kernels.h"

namespace tercet {

template <int Bits, int Flip, int Factor, int Offset>
struct Packed {
    static constexpr int bits = Bits, flip = Flip, factor = Factor, offset = Offset;
    static constexpr int columns = 32 / Bits, mask = (1 << Bits) - 1;
};

using T2 = Packed<2, 0, 1, 1>;
using B1 = Packed<1, 0, 2, 1>;
using Q8 = Packed<8, 0x80, 1, 128>;
using Q4 = Packed<4, 0, 1, 8>;

// Bits 5i .. 5i+4 are d0 + 3*d1 + 9*d2 of columns 3i .. 3i+2, d = weight + 1; bits 30 and 31 are d of column 18. What
// is no such number, 27 .. 31 and 3, stands for zero weights.
struct T19 {
    static constexpr int columns = 19, offset = 1;
};

constexpr int TILE_BYTES = 64;

static inline int t19_weight(const uint8_t* bytes, int j) {
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) word |= (uint32_t)bytes[i] << 8 * i;
    if (j == 18) return word >> 30 == 3 ? 0 : (int)(word >> 30) - 1;
    const int field = (int)(word >> (5 * (j / 3)) & 31), power = j % 3 == 0 ? 1 : j % 3 == 1 ? 3 : 9;
    return field > 26 ? 0 : field / power % 3 - 1;
}

// The integer weight of column j of a tile's row, whose four bytes are given: the definition, in plain C.
template <class Format>
static inline int weight_of(const uint8_t* bytes, int j) {
    if constexpr (Format::columns == T19::columns) return t19_weight(bytes, j);
    else {
        const int code = (bytes[j % 4] >> (Format::bits * (j / 4))) & Format::mask;
        return Format::factor * (code ^ Format::flip) - Format::offset;
    }
}

// Tiles of a group, and columns of the group that starts at `column`: the last may have fewer.
template <class Format>
static inline int32_t tiles_of_group(const tercet_matrix* w) {
    return (w->group + Format::columns - 1) / Format::columns;
}
static inline int32_t columns_of_group(const tercet_matrix* w, int32_t g) {
    return w->cols - g * w->group < w->group ? w->cols - g * w->group : w->group;
}

} // namespace tercet
#endif
