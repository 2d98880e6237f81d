// The neon backend's float operations.
#include "../backends.h"
#include "../f32x16_neon.h"

namespace tercet {

const tercet_backend backend_neon = TERCET_BACKEND_ROW(neon, neon::f32x16, nullptr);

} // namespace tercet
