// The extension module tercet._native: checked doors to the kernels and the engine, and nothing else.
#include <nanobind/nanobind.h>

void bind_kernels(nanobind::module_& m);
void bind_engine(nanobind::module_& m);

NB_MODULE(_native, m) {
    bind_kernels(m);
    bind_engine(m);
}
