// Four-bit weights: gemv.h and product.h for one format.
#include "gemv.h"

namespace tercet {

TERCET_LINEAR(q4_linear_avx2) { avx2::linear<Q4>(w, x, bias, y, y_stride, tile_begin, tile_end); }

} // namespace tercet
