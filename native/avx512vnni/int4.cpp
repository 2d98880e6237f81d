// Nibbles q + 8; 8*S is taken off.
#include "linear.h"

namespace tercet {

TERCET_LINEAR(q4_linear_avx512vnni) {
    avx512vnni::linear<Q4>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet
