// Signed bytes, as sdot takes them.
#include "linear.h"

namespace tercet {

TERCET_LINEAR(q8_linear_neon) {
    neon::linear<Q8, neon::Unpacked<Q8>, 4>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet
