// Signed bytes: q ^ 0x80 = q + 128 is what vpdpbusd takes unsigned; 128*S is taken off.
#include "linear.h"

namespace tercet {

TERCET_LINEAR(q8_linear_avx512vnni) {
    avx512vnni::linear<Q8>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet
