// The packed formats as constants. A tile holds 16 rows; a row's 32 bits of it hold `columns` codes: byte j, bits
// bits*s and up, is column 4s+j. The weight's integer is factor*(code ^ flip) - offset, so that every kernel multiplies
// the unsigned byte factor*(code ^ flip) and subtracts offset times the activations' sum.
// Only constants here: functions would be shared by the linker between instruction sets.
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

constexpr int TILE_BYTES = 64;

} // namespace tercet
#endif
