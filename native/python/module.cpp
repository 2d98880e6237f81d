// The extension module tercet._native: checked doors to the kernels, the engine and training's levels, and nothing else.
#include <nanobind/nanobind.h>

void bind_kernels(nanobind::module_& m);
void bind_engine(nanobind::module_& m);
void bind_levels(nanobind::module_& m);

NB_MODULE(_native, m) {
    bind_kernels(m);
    bind_engine(m);
    bind_levels(m);
}
