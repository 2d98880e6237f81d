// The avx2 backend's float operations.
#include "../backends.h"
#include "../f32x16_avx2.h"

namespace tercet {

const tercet_backend backend_avx2 = TERCET_BACKEND_ROW(avx2, avx2::f32x16, nullptr);

} // namespace tercet
