// A weight matrix as Python hands it over: the arrays stay alive with it, and it is checked once, on construction.
#ifndef TERCET_PYTHON_MATRIX_H
#define TERCET_PYTHON_MATRIX_H

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace tercet::python {

namespace nb = nanobind;

using Bytes = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>; // any dtype and shape

// The instruction set by name; "" is the default. Throws std::invalid_argument.
inline const tercet_backend* backend(const std::string& isa) {
    const tercet_backend* b = isa.empty() ? tercet_backend_default() : tercet_backend_named(isa.c_str());
    if (!b) throw std::invalid_argument(tercet_backend_error());
    return b;
}

struct Matrix {
    tercet_matrix view{};
    Bytes codes;
    std::optional<Bytes> scale, shift;

    // codes: u8, any shape of ceil(rows/16)*col_tiles*64 bytes (f16/f32: that dtype, rows*cols);
    // scale, shift: float16 of ceil(rows/16)*groups*16 values. Throws std::invalid_argument.
    Matrix(int format, int64_t rows, int64_t cols, int64_t group, Bytes codes_, std::optional<Bytes> scale_,
           std::optional<Bytes> shift_)
        : codes(std::move(codes_)), scale(std::move(scale_)), shift(std::move(shift_)) {
        if (rows < 1 || cols < 1 || rows > INT32_MAX - 16 || cols > INT32_MAX - 64 || group < 1)
            throw std::invalid_argument("matrix: rows, columns or group out of range");
        const bool tiled = format >= 0 && format < TERCET_PACKED_FORMATS;
        const int columns = tiled ? tercet_tile_columns(format) : 1;
        const int32_t width = (int32_t)(group < cols ? group : cols);
        view.format = format;
        view.rows = (int32_t)rows;
        view.cols = (int32_t)cols;
        view.col_tiles = tiled ? tercet_col_tiles(format, view.cols, width) : view.cols;
        // A group of all columns is the whole row of tiles, padding included.
        view.group = group >= cols ? view.col_tiles * columns : width;
        view.groups = (int32_t)((cols + view.group - 1) / view.group);
        view.codes = codes.data();
        view.scale = scale ? (const uint16_t*)scale->data() : nullptr;
        view.shift = shift ? (const uint16_t*)shift->data() : nullptr;
        if (const char* error = tercet_matrix_error(&view)) throw std::invalid_argument("matrix: " + std::string(error));
        check_arrays();
    }

    bool packed() const { return view.format < TERCET_PACKED_FORMATS; }
    int32_t row_tiles() const { return (view.rows + TERCET_ROWS - 1) / TERCET_ROWS; }
    // Bytes between two tokens' activations.
    int64_t stride() const { return ((int64_t)view.cols + 63) / 64 * 64; }

  private:
    void check_arrays() const {
        if (!packed()) {
            const int bits = view.format == TERCET_F16 ? 16 : 32;
            if (codes.dtype().code != (uint8_t)nb::dlpack::dtype_code::Float || codes.dtype().bits != bits ||
                (int64_t)codes.size() != (int64_t)view.rows * view.cols || scale || shift)
                throw std::invalid_argument("matrix: float weights must be one array [rows, cols] of the format's dtype");
            return;
        }
        if (codes.dtype() != nb::dtype<uint8_t>() ||
            (int64_t)codes.size() != (int64_t)row_tiles() * view.col_tiles * 64)
            throw std::invalid_argument("matrix: codes must be uint8[ceil(rows/16), column tiles, 64]");
        for (const auto* values : {&scale, &shift}) {
            if (!*values) continue;
            const Bytes& array = **values;
            if (array.dtype().code != (uint8_t)nb::dlpack::dtype_code::Float || array.dtype().bits != 16 ||
                (int64_t)array.size() != (int64_t)row_tiles() * view.groups * 16)
                throw std::invalid_argument("matrix: scale and shift must be float16[ceil(rows/16), groups, 16]");
        }
    }
};

} // namespace tercet::python
#endif
