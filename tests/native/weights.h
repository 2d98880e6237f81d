// Packed weights with the integers they stand for, written from docs/format.md and from nothing in native/.
#ifndef TERCET_SWEEP_WEIGHTS_H
#define TERCET_SWEEP_WEIGHTS_H

#include "support.h"

namespace sweep {

class Format {
  public:
    const char* name;
    int32_t id;
    int columns;            // of a tile
    int low, high;          // valid values
    bool groups_fill_tiles; // else a group ends within a tile, and the next begins with the next tile

    bool has(int group, bool column_tail) const {
        return groups_fill_tiles || group == 0 || (group == 128 && !column_tail);
    }
    // A matrix's column tiles, and the one that holds a column, and which of its columns it is.
    int tiles(int cols, int group) const { return group ? cols / group * up(group) + up(cols % group) : up(cols); }
    int tile(int column, int group) const {
        return group ? column / group * up(group) + column % group / columns : column / columns;
    }
    int within(int column, int group) const { return (group ? column % group : column) % columns; }

  private:
    int up(int count) const { return (count + columns - 1) / columns; }
};
const std::vector<Format>& formats();

struct Shape {
    const Format* format;
    int rows, cols;
    int group; // 0: row scales
    bool shift;
};

struct Weights {
    tercet_matrix matrix;
    int width;                  // columns of a group; all for row scales
    int64_t stride;             // of its activations, the least
    std::vector<int8_t> values; // [rows][cols]
    int value(int row, int column) const { return values[(size_t)row * (size_t)matrix.cols + (size_t)column]; }
};

// Random, the extremes, or any bytes, codes included that mean nothing; placed in the arenas.
class Maker {
  public:
    const Weights& make(const Shape& shape, bool plain_scales, Random& random);

  private:
    void fill_codes(const Shape& shape, uint32_t* lanes, Random& random);
    Arena codes_{1 << 23}, scale_{1 << 21}, shift_{1 << 21};
    Weights weights_;
};

// The value of column `column` of a tile in a row's 32 bits.
int decode(const Format& format, uint32_t lane, int column);

} // namespace sweep
#endif
