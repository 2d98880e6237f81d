// The avx512vnni backend's float operations.
#include "../backends.h"
#include "../f32x16_avx512.h"

namespace tercet {

const tercet_backend backend_avx512vnni = TERCET_BACKEND_ROW(avx512vnni, avx512vnni::f32x16, t19_linear_avx512vnni);

} // namespace tercet
