// The table of what the packed products were tried with: format x instruction set x tail x group x shift x tokens.
#ifndef TERCET_SWEEP_COVERAGE_H
#define TERCET_SWEEP_COVERAGE_H

#include <map>

#include "weights.h"

namespace sweep {

constexpr int TAILS = 4;         // no tail, rows, columns, both
constexpr int TOKEN_CLASSES = 4; // 1, 2-8, 9-31, 32 and more
extern const int GROUPS[4];    // 0: row scales

struct Cell {
    const Format* format;
    int group, shift, tail, tokens;
};

class Coverage {
  public:
    Coverage();
    const std::vector<Cell>& cells() const { return cells_; }
    void count(const Shape& shape, int n, int backend); // its place in backends()
    int64_t total() const { return total_; }
    // Prints the table (all of it, or its least and greatest count) and fails where a cell has fewer than `least` cases.
    void report(int least, bool table) const;

  private:
    std::vector<Cell> cells_; // those that exist: t19 has groups of 128 and rows only
    std::map<std::vector<int>, int64_t> counts_; // of a cell and a backend
    int64_t total_ = 0;
};

} // namespace sweep
#endif
