// The engine's bindings.
#include <nanobind/nanobind.h>

void bind_engine(nanobind::module_&) {}
