#include "engine/rope.h"

namespace tercet {
namespace {

// pi/2 in three parts of 33, 33 and 53 bits: k times each of the first two is exact for k < 2^20.
const double HALF_PI_1 = 0x1.921fb54400000p+0;
const double HALF_PI_2 = 0x1.0b4611a600000p-34;
const double HALF_PI_3 = 0x1.3198a2e037073p-69;
const double TWO_OVER_PI = 0x1.45f306dc9c883p-1;

// Taylor series on |r| <= pi/4; the first term left out is below 2^-57.
double sin_near_zero(double r) {
    const double z = r * r;
    double sum = -1.0 / 121645100408832000.0;
    sum = sum * z + 1.0 / 355687428096000.0;
    sum = sum * z - 1.0 / 1307674368000.0;
    sum = sum * z + 1.0 / 6227020800.0;
    sum = sum * z - 1.0 / 39916800.0;
    sum = sum * z + 1.0 / 362880.0;
    sum = sum * z - 1.0 / 5040.0;
    sum = sum * z + 1.0 / 120.0;
    sum = sum * z - 1.0 / 6.0;
    return r + r * (z * sum);
}

double cos_near_zero(double r) {
    const double z = r * r;
    double sum = -1.0 / 6402373705728000.0;
    sum = sum * z + 1.0 / 20922789888000.0;
    sum = sum * z - 1.0 / 87178291200.0;
    sum = sum * z + 1.0 / 479001600.0;
    sum = sum * z - 1.0 / 3628800.0;
    sum = sum * z + 1.0 / 40320.0;
    sum = sum * z - 1.0 / 720.0;
    sum = sum * z + 1.0 / 24.0;
    sum = sum * z - 0.5;
    return 1.0 + z * sum;
}

} // namespace

void sincos(double angle, double* sin, double* cos) {
    const double shifted = angle * TWO_OVER_PI;
    const int64_t k = static_cast<int64_t>(shifted < 0 ? shifted - 0.5 : shifted + 0.5);
    const double n = static_cast<double>(k);
    const double r = ((angle - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3;
    const double s = sin_near_zero(r), c = cos_near_zero(r);
    switch (k & 3) {
    case 0: *sin = s; *cos = c; break;
    case 1: *sin = c; *cos = -s; break;
    case 2: *sin = -s; *cos = -c; break;
    default: *sin = -c; *cos = s; break;
    }
}

void rope_angles(const RopeSpec& rope, int64_t position, float* cos, float* sin) {
    for (size_t i = 0; i < rope.inv_freq.size(); ++i) {
        const float angle = static_cast<float>(position) * rope.inv_freq[i];
        double s, c;
        sincos(static_cast<double>(angle), &s, &c);
        cos[i] = static_cast<float>(c) * rope.factor;
        sin[i] = static_cast<float>(s) * rope.factor;
    }
}

} // namespace tercet
