// Nibbles q + 8; 8*S is taken off.
#include "gemm.h"
#include "product.h"

namespace tercet {

TERCET_LINEAR(q4_linear_neon) {
    if (x->n > neon::FEW) return neon::gemm<Q4>(w, x, bias, y, y_stride, tile_begin, tile_end);
    if (x->n > 1) return neon::few<Q4>(w, x, bias, y, y_stride, tile_begin, tile_end);
    if (x->n == 1) neon::gemv<Q4, neon::Unpacked<Q4>, 4>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet
