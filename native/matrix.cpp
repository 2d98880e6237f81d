// What every kernel takes for granted about a matrix, checked in one place before native code reads it.
#include "formats.h"

namespace tercet {
namespace {

// Columns a scale may cover before an int32 sum could overflow: 127 * 128 * 131072 < 2^31, and 127 * 3 * 2^22 < 2^31.
constexpr int32_t MOST_COLUMNS_Q8 = 131072, MOST_COLUMNS = 1 << 22;

int tile_columns(int32_t format) {
    switch (format) {
    case TERCET_T2: return T2::columns;
    case TERCET_B1: return B1::columns;
    case TERCET_Q8: return Q8::columns;
    default: return Q4::columns;
    }
}

} // namespace
} // namespace tercet

extern "C" const char* tercet_matrix_error(const tercet_matrix* w) {
    if (w->format < TERCET_T2 || w->format > TERCET_F32) return "unknown weight format";
    if (w->rows < 1 || w->cols < 1 || w->rows > INT32_MAX - TERCET_ROWS || w->cols > tercet::MOST_COLUMNS)
        return "rows or columns out of range: 1 .. 2^31 - 17 rows, 1 .. 4194304 columns";
    if (!w->codes) return "no codes";
    if (w->format == TERCET_F16 || w->format == TERCET_F32) return nullptr;
    const int32_t columns = tercet::tile_columns(w->format);
    if (!w->scale) return "no scales";
    if (w->col_tiles != (w->cols + columns - 1) / columns) return "the number of column tiles does not fit the columns";
    if (w->group < columns || w->group % columns) return "the group size is not a multiple of the tile's columns";
    if (w->group > w->col_tiles * columns) return "the group is wider than the matrix";
    if (w->groups != (w->cols + w->group - 1) / w->group) return "the number of groups does not fit the columns";
    if (w->format == TERCET_Q8 && w->group > tercet::MOST_COLUMNS_Q8)
        return "more than 131072 columns share an int8 scale: an int32 sum could overflow; use groups";
    return nullptr;
}
