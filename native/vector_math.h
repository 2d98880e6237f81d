// exp, tanh, erf and the activations over V, a 16-lane float type (f32x16_*.h). Written once, compiled once for each
// instruction set; since every V operation rounds alike, so does everything built of it. Errors: exp, tanh, erf within
// a few units in the last place; exp is 0 below the smallest normal number. Polynomials: least maximum error fits.
#ifndef TERCET_VECTOR_MATH_H
#define TERCET_VECTOR_MATH_H

#include "kernels.h"

namespace tercet {

template <class V>
V polynomial(V x, const float* coefficients, int degree) { // highest power first
    V y = V::set(coefficients[0]);
    for (int i = 1; i <= degree; i++) y = fma(y, x, V::set(coefficients[i]));
    return y;
}

// 2^n for whole n in -126..127: n + 127 lands in the low bits of the mantissa, and moves up to the exponent.
template <class V>
V power_of_two(V n) {
    return (n + V::set(0x1.8p23f + 127.0f)).shifted_left_23();
}

constexpr float EXP_LOW = -0x1.5d589ep6f; // ln(2^-126)

// exp(a - n*ln 2), for the whole n nearest to a/ln 2.
template <class V>
V exp_of_rest(V a, V n) {
    static const float c[] = {0x1.a1aeap-13f, 0x1.6d973ep-10f, 0x1.11084p-7f, 0x1.55548p-5f, 0x1.555556p-3f, 0x1p-1f};
    const V r = fma(n, V::set(-0x1.7f7d1cp-20f), fma(n, V::set(-0x1.62e4p-1f), a)); // ln 2 in two parts
    return fma(fma(r * r, polynomial(r, c, 5), r), V::set(1.0f), V::set(1.0f));
}

template <class V>
V exp(V x) {
    const V low = V::set(EXP_LOW), high = V::set(0x1.62e43p6f); // the first whose exp is infinite
    const V round = V::set(0x1.8p23f);
    const V a = min(high, max(low, x)); // a NaN stays
    const V n = fma(a, V::set(0x1.715476p0f), round) - round;
    const V half = fma(n, V::set(0.5f), round) - round; // 2^n in two steps: n reaches 128
    return select_less(x, low, V::zero(), exp_of_rest(a, n) * power_of_two(half) * power_of_two(n - half));
}

// exp of x <= 0 in fewer steps, the same bits: 2^n needs no halves, and nothing overflows.
template <class V>
V exp_negative(V x) {
    const V low = V::set(EXP_LOW), round = V::set(0x1.8p23f);
    const V a = max(low, x), n = fma(a, V::set(0x1.715476p0f), round) - round;
    return select_less(x, low, V::zero(), exp_of_rest(a, n) * power_of_two(n));
}

template <class V>
V tanh(V x) {
    static const float c[] = {-0x1.762d9ap-8f, 0x1.523bdp-6f, -0x1.b8405cp-5f, 0x1.11074cp-3f, -0x1.555534p-2f};
    const V a = x.abs(), z = x * x, one = V::set(1.0f);
    const V small = fma(x * z, polynomial(z, c, 4), x);
    const V large = (one - V::set(2.0f) / (exp(a + a) + one)).sign_of(x);
    return select_less(a, V::set(0.625f), small, large);
}

template <class V>
V erf(V x) {
    static const float near[] = {-0x1.395f3ep-11f, 0x1.47179p-8f,  -0x1.b6871ap-6f,
                                 0x1.ce1a4ap-4f,   -0x1.8126e6p-2f, 0x1.06eba6p-3f};
    static const float far[] = {-0x1.630a2ap-16f, 0x1.c85c8p-12f,  -0x1.1196fap-8f, 0x1.9bb526p-6f,
                                -0x1.bb9274p-4f,  -0x1.44447p-1f, -0x1.212846p0f,  0x1.70d6cap-13f}; // ln(1 - erf)
    const V a = x.abs(), t = min(V::set(4.0f), a);
    const V small = fma(x, polynomial(x * x, near, 5), x);
    const V large = (V::set(1.0f) - exp(polynomial(t, far, 7))).sign_of(x);
    return select_less(a, V::set(0.9296875f), small, large);
}

template <class V>
V activation(int32_t function, V x) {
    const V one = V::set(1.0f), half = V::set(0.5f);
    if (function == TERCET_SILU) return x / (one + exp(-x));
    if (function == TERCET_QUICK_GELU) return x / (one + exp(x * V::set(-1.702f)));
    if (function == TERCET_GELU) return half * x * (one + erf(x * V::set(0x1.6a09e6p-1f)));
    const V inner = V::set(0x1.988454p-1f) * fma(x * x * x, V::set(0.044715f), x); // sqrt(2/pi)
    return half * x * (one + tanh(inner));
}

} // namespace tercet
#endif
