// What every kernel takes for granted about a matrix, checked in one place before native code reads it.
#include "formats.h"

namespace tercet {
namespace {

// Columns a scale may cover before an int32 sum could overflow: 127 * 128 * 131072 < 2^31, and 127 * 3 * 2^22 < 2^31.
constexpr int32_t MOST_COLUMNS_Q8 = 131072, MOST_COLUMNS = 1 << 22;

int32_t divide_up(int32_t a, int32_t b) { return a / b + (a % b != 0); }

// Groups start a tile, and end one but in t19: it has 128 columns in 7 tiles, or the row's.
bool whole_groups(const tercet_matrix* w, int32_t columns) {
    if (w->format == TERCET_T19) return w->group == 128 || (w->groups == 1 && w->group % columns == 0);
    return w->group % columns == 0;
}

} // namespace
} // namespace tercet

extern "C" int32_t tercet_tile_columns(int32_t format) {
    switch (format) {
    case TERCET_T2: return tercet::T2::columns;
    case TERCET_B1: return tercet::B1::columns;
    case TERCET_Q8: return tercet::Q8::columns;
    case TERCET_Q4: return tercet::Q4::columns;
    default: return tercet::T19::columns;
    }
}

extern "C" int32_t tercet_col_tiles(int32_t format, int32_t cols, int32_t group) {
    const int32_t columns = tercet_tile_columns(format);
    if (group >= cols) return tercet::divide_up(cols, columns);
    return cols / group * tercet::divide_up(group, columns) + tercet::divide_up(cols % group, columns);
}

extern "C" const char* tercet_matrix_error(const tercet_matrix* w) {
    if (w->format < TERCET_T2 || w->format > TERCET_F32) return "unknown weight format";
    if (w->rows < 1 || w->cols < 1 || w->rows > INT32_MAX - TERCET_ROWS || w->cols > tercet::MOST_COLUMNS)
        return "rows or columns out of range: 1 .. 2^31 - 17 rows, 1 .. 4194304 columns";
    if (!w->codes) return "no codes";
    if (w->format == TERCET_F16 || w->format == TERCET_F32) return nullptr;
    const int32_t columns = tercet_tile_columns(w->format);
    if (!w->scale) return "no scales";
    if (w->group < 1 || w->col_tiles != tercet_col_tiles(w->format, w->cols, w->group))
        return "the number of column tiles does not fit the columns";
    if (w->groups != tercet::divide_up(w->cols, w->group)) return "the number of groups does not fit the columns";
    if (!tercet::whole_groups(w, columns)) return "the group size does not fit the tile's columns";
    if (w->group > w->col_tiles * columns) return "the group is wider than the matrix";
    if (w->format == TERCET_Q8 && w->group > tercet::MOST_COLUMNS_Q8)
        return "more than 131072 columns share an int8 scale: an int32 sum could overflow; use groups";
    return nullptr;
}
