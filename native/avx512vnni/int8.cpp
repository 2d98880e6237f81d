// Signed bytes: q ^ 0x80 = q + 128 is what vpdpbusd takes unsigned; 128*S is taken off.
#include "gemm.h"
#include "gemv.h"

namespace tercet {

TERCET_LINEAR(q8_linear_avx512vnni) {
    if (x->n != 1) return avx512vnni::gemm<Q8>(w, x, bias, y, y_stride, tile_begin, tile_end);
    avx512vnni::gemv<Q8, avx512vnni::Unpacked<Q8>::Products>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet
