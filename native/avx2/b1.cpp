// Binary weights: gemv.h and product.h for one format.
#include "gemv.h"

namespace tercet {

TERCET_LINEAR(b1_linear_avx2) { avx2::linear<B1>(w, x, bias, y, y_stride, tile_begin, tile_end); }

} // namespace tercet
