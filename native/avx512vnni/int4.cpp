// Nibbles q + 8; 8*S is taken off.
#include "gemm.h"
#include "gemv.h"

namespace tercet {

TERCET_LINEAR(q4_linear_avx512vnni) {
    if (x->n != 1) return avx512vnni::gemm<Q4>(w, x, bias, y, y_stride, tile_begin, tile_end);
    avx512vnni::gemv<Q4, avx512vnni::Unpacked<Q4>::Products>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet
