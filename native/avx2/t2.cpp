// Two-bit ternary weights: gemv.h and product.h for one format.
#include "gemv.h"

namespace tercet {

TERCET_LINEAR(t2_linear_avx2) { avx2::linear<T2>(w, x, bias, y, y_stride, tile_begin, tile_end); }

} // namespace tercet
