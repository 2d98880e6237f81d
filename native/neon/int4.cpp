// Nibbles q + 8; 8*S is taken off.
#include "linear.h"

namespace tercet {

TERCET_LINEAR(q4_linear_neon) {
    neon::linear<Q4, neon::Unpacked<Q4>, 4>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet
