// Binary weights: a bit becomes the byte 0 or 2, from which 1 is taken as S.
#include "linear.h"

namespace tercet {

TERCET_LINEAR(b1_linear_avx512vnni) {
    avx512vnni::linear<B1>(w, x, bias, y, y_stride, tile_begin, tile_end);
}

} // namespace tercet
