// Until its kernels are written, the packed products are the scalar ones.
#include "../backends.h"

namespace tercet {

TERCET_LINEAR(t2_linear_avx512vnni) { t2_linear_scalar(w, x, bias, y, y_stride, tile_begin, tile_end); }
TERCET_LINEAR(b1_linear_avx512vnni) { b1_linear_scalar(w, x, bias, y, y_stride, tile_begin, tile_end); }
TERCET_LINEAR(q8_linear_avx512vnni) { q8_linear_scalar(w, x, bias, y, y_stride, tile_begin, tile_end); }
TERCET_LINEAR(q4_linear_avx512vnni) { q4_linear_scalar(w, x, bias, y, y_stride, tile_begin, tile_end); }

} // namespace tercet
