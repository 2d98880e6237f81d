// The rows of the dispatch table, and the packed products they are made of. A kernel's name is its format, what it
// does, and its instruction set: t2_linear_avx2.
#ifndef TERCET_BACKENDS_H
#define TERCET_BACKENDS_H

#include "vector_attention.h"
#include "vector_linear.h"
#include "vector_rotate.h"
#include "vector_sampling.h"

#define TERCET_LINEAR(name)                                                                                            \
    void name(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int64_t y_stride,      \
              int32_t tile_begin, int32_t tile_end)

#define TERCET_BACKEND(isa)                                                                                            \
    TERCET_LINEAR(t2_linear_##isa);                                                                                    \
    TERCET_LINEAR(b1_linear_##isa);                                                                                    \
    TERCET_LINEAR(q8_linear_##isa);                                                                                    \
    TERCET_LINEAR(q4_linear_##isa);                                                                                    \
    extern const tercet_backend backend_##isa;

// The functions of a backend whose float type is V; t19 is its product for that format, or NULL.
#define TERCET_BACKEND_ROW(isa, V, t19)                                                                                \
    {#isa,                                                                                                             \
     quantize<V>,                                                                                                      \
     {t2_linear_##isa, b1_linear_##isa, q8_linear_##isa, q4_linear_##isa, t19},                                        \
     linear_float<V>,                                                                                                  \
     row<V>,                                                                                                           \
     rmsnorm<V>,                                                                                                       \
     layernorm<V>,                                                                                                     \
     rope<V>,                                                                                                          \
     kv_store<V>,                                                                                                      \
     attention<V>,                                                                                                     \
     activate<V>,                                                                                                      \
     gated<V>,                                                                                                         \
     add<V>,                                                                                                           \
     clip<V>,                                                                                                          \
     rotate<V>,                                                                                                        \
     maxima<V>,                                                                                                        \
     weights<V>}

namespace tercet {
TERCET_BACKEND(scalar)
TERCET_BACKEND(avx2)
TERCET_BACKEND(avx512vnni)
const tercet_backend* backend_amx(); // avx512vnni's with products of its own
TERCET_BACKEND(neon)
TERCET_LINEAR(t19_linear_scalar);
TERCET_LINEAR(t19_linear_avx512vnni);
} // namespace tercet
#endif
