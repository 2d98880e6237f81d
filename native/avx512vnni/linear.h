// Which of the three products a number of tokens takes; none: nothing to do.
#ifndef TERCET_AVX512VNNI_LINEAR_H
#define TERCET_AVX512VNNI_LINEAR_H

#include "few.h"
#include "gemm.h"
#include "gemv.h"

namespace tercet::avx512vnni {

template <class Format, template <int> class Products = Unpacked<Format>::template Products>
TERCET_LINEAR(linear) {
    if (x->n > MOST_FEW) gemm<Format>(w, x, bias, y, y_stride, tile_begin, tile_end);
    else if (x->n > 1) few<Format>(w, x, bias, y, y_stride, tile_begin, tile_end);
    else if (x->n == 1) gemv<Format, Products>(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet::avx512vnni
#endif
