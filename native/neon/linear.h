// Which of the three products a number of tokens takes; none: nothing to do. One token: Products, R row tiles at once.
#ifndef TERCET_NEON_LINEAR_H
#define TERCET_NEON_LINEAR_H

#include "gemm.h"
#include "product.h"

namespace tercet::neon {

template <class Format, class Products, int R>
TERCET_LINEAR(linear) {
    if (x->n > FEW) gemm<Format>(w, x, bias, y, y_stride, tile_begin, tile_end);
    else if (x->n > 1) few<Format>(w, x, bias, y, y_stride, tile_begin, tile_end);
    else if (x->n == 1) gemv<Format, Products, R>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet::neon
#endif
