// Paley's symmetric Hadamard matrices (docs/format.md, "Rotation"); the formulas are in tercet/program/hadamard.py.
#include <vector>

#include "kernels.h"

namespace tercet {
namespace {

enum { NONE = 0, FIRST = 1, SECOND = 2 };

bool is_prime(int q) {
    for (int factor = 2; factor * factor <= q; factor++)
        if (q % factor == 0) return false;
    return q > 1;
}

int construction(int m) {
    if (m % 4) return NONE;
    if (is_prime(m - 1)) return FIRST; // m - 1 = 3 mod 4
    return (m / 2 - 1) % 4 == 1 && is_prime(m / 2 - 1) ? SECOND : NONE;
}

// The order of Paley's part of a block, 1 for a power of two; 0 where there is none.
int order_of(int32_t block) {
    if (block < 1) return 0;
    const int odd = block / (block & -block);
    if (odd == 1) return 1;
    for (int64_t m = (int64_t)4 * odd; m <= TERCET_MOST_ORDER && block % m == 0; m *= 2)
        if (construction((int)m)) return (int)m;
    return 0;
}

} // namespace
} // namespace tercet

extern "C" int32_t tercet_hadamard_order(int32_t block) { return tercet::order_of(block); }

extern "C" void tercet_hadamard_signs(int32_t order, float* signs) {
    const bool first = tercet::construction(order) == tercet::FIRST;
    const int q = first ? order - 1 : order / 2 - 1;
    std::vector<int> character((size_t)q, -1);
    for (int64_t i = 1; i < q; i++) character[(size_t)(i * i % q)] = 1;
    character[0] = 1;
    for (int i = 0; i < order; i++)
        for (int j = 0; j < order; j++) {
            const int row = first ? i : i / 2, column = first ? j : j / 2;
            int sign = 1; // the border's
            if (row && column)
                sign = first ? -character[(size_t)((row + column - 2) % q)] : character[(size_t)((row - column + q) % q)];
            if (!first && row == column) sign = i % 2 + j % 2 ? -1 : 1;
            else if (!first && i % 2 && j % 2) sign = -sign;
            *signs++ = (float)sign;
        }
}
