// Signed bytes, as sdot takes them.
#include "gemm.h"
#include "product.h"

namespace tercet {

TERCET_LINEAR(q8_linear_neon) {
    if (x->n > neon::FEW) return neon::gemm<Q8>(w, x, bias, y, y_stride, tile_begin, tile_end);
    if (x->n > 1) return neon::few<Q8>(w, x, bias, y, y_stride, tile_begin, tile_end);
    if (x->n == 1) neon::gemv<Q8, neon::Unpacked<Q8>, 4>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet
