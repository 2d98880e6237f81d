// The amx backend: avx512vnni's, but for products with enough tokens to fill tiles.
#include "gemm.h"

namespace tercet {
namespace {

constexpr int LEAST_TOKENS = 12; // from which tiles are faster

template <class Format>
TERCET_LINEAR(linear) {
    const bool fits = tile_end - tile_begin >= amx::PANEL && (w->groups == 1 || w->group % amx::LEAST_GROUP == 0);
    if (x->n >= LEAST_TOKENS && fits) return amx::gemm<Format>(w, x, bias, y, y_stride, tile_begin, tile_end);
    backend_avx512vnni.linear[w->format](w, x, bias, y, y_stride, tile_begin, tile_end);
}

tercet_backend make_backend() {
    tercet_backend b = backend_avx512vnni;
    b.name = "amx";
    b.linear[TERCET_T2] = linear<T2>;
    b.linear[TERCET_B1] = linear<B1>;
    b.linear[TERCET_Q8] = linear<Q8>;
    b.linear[TERCET_Q4] = linear<Q4>;
    return b;
}

} // namespace

const tercet_backend* backend_amx() {
    static const tercet_backend b = make_backend();
    return &b;
}

} // namespace tercet
