// The scalar backend's float operations: plain C++, std::fma.
#include "../backends.h"
#include "../f32x16_scalar.h"

namespace tercet {

const tercet_backend backend_scalar = TERCET_BACKEND_ROW(scalar, scalar::f32x16, t19_linear_scalar);

} // namespace tercet
