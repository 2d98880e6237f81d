// cos and sin of rotary embeddings, the same bits on every machine: no libm, no fma, one order of operations.
#ifndef TERCET_ENGINE_ROPE_H
#define TERCET_ENGINE_ROPE_H

#include <cstdint>

#include "engine/program.h"

namespace tercet {

const double MAX_ANGLE = 1.0e6; // radians; beyond it the reduction below loses bits

// sin and cos of |angle| <= MAX_ANGLE, within 2^-50 or so: correctly rounded float32 but for rare ties.
void sincos(double angle, double* sin, double* cos);

// cos and sin, f32[inv_freq], of one position: angle = f32(position) * inv_freq in float32, results times the factor.
void rope_angles(const RopeSpec& rope, int64_t position, float* cos, float* sin);

} // namespace tercet
#endif
