// Binary weights: a bit becomes the byte 0 or 2, from which 1 is taken as S.
#include "gemm.h"
#include "gemv.h"

namespace tercet {

TERCET_LINEAR(b1_linear_avx512vnni) {
    if (x->n != 1) return avx512vnni::gemm<B1>(w, x, bias, y, y_stride, tile_begin, tile_end);
    avx512vnni::gemv<B1, avx512vnni::Unpacked<B1>::Products>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet
