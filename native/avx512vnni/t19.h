// The two products of base-27 ternary weights: with one token, and with several.
#ifndef TERCET_AVX512VNNI_T19_H
#define TERCET_AVX512VNNI_T19_H

#include "../backends.h"

namespace tercet::avx512vnni {

void t19_gemv(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int32_t tile_begin,
              int32_t tile_end);

} // namespace tercet::avx512vnni
#endif
