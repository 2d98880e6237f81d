#include "weights.h"

#include <string.h>

namespace sweep {
namespace {

const uint32_t POWERS[3] = {1, 3, 9};

uint32_t encode(const Format& format, int value, int column) {
    const int byte = 8 * (column % 4), place = column / 4;
    switch (format.id) {
    case TERCET_T19:
        if (column == 18) return (uint32_t)(value + 1) << 30;
        return (uint32_t)(value + 1) * POWERS[column % 3] << (5 * (column / 3));
    case TERCET_T2: return (uint32_t)(value + 1) << (byte + 2 * place);
    case TERCET_B1: return (uint32_t)(value > 0) << (byte + place);
    case TERCET_Q4: return (uint32_t)(value + 8) << (byte + 4 * place);
    default: return (uint32_t)(uint8_t)value << byte;
    }
}

} // namespace

const std::vector<Format>& formats() {
    static const std::vector<Format> all = {
        {"t2", TERCET_T2, 16, -1, 1, true},
        {"b1", TERCET_B1, 32, -1, 1, true},
        {"q8", TERCET_Q8, 4, -127, 127, true},
        {"q4", TERCET_Q4, 8, -8, 7, true},
        {"t19", TERCET_T19, 19, -1, 1, false},
    };
    return all;
}

int decode(const Format& format, uint32_t lane, int column) {
    const int byte = 8 * (column % 4), place = column / 4;
    switch (format.id) {
    case TERCET_T19: {
        const uint32_t field = column == 18 ? lane >> 30 : lane >> (5 * (column / 3)) & 31;
        if (field >= (column == 18 ? 3u : 27u)) return 0;
        return (int)(field / (column == 18 ? 1 : POWERS[column % 3]) % 3) - 1;
    }
    case TERCET_T2: return (int)(lane >> (byte + 2 * place) & 3) - 1;
    case TERCET_B1: return lane >> (byte + place) & 1 ? 1 : -1;
    case TERCET_Q4: return (int)(lane >> (byte + 4 * place) & 15) - 8;
    default: return (int8_t)(lane >> byte & 255);
    }
}

const Weights& Maker::make(const Shape& shape, bool plain_scales, Random& random) {
    const Format& format = *shape.format;
    const int tiles = format.tiles(shape.cols, shape.group), row_tiles = (shape.rows + 15) / 16;
    tercet_matrix& m = weights_.matrix;
    weights_.width = shape.group ? shape.group : shape.cols;
    weights_.stride = ((int64_t)shape.cols + 63) / 64 * 64;
    const int groups = (shape.cols + weights_.width - 1) / weights_.width;
    const size_t scales = (size_t)row_tiles * (size_t)groups * 16;
    uint8_t* codes = codes_.place<uint8_t>((size_t)row_tiles * (size_t)tiles * 64, random);
    uint16_t* scale = scale_.place<uint16_t>(scales, random);
    uint16_t* shift = shape.shift ? shift_.place<uint16_t>(scales, random) : nullptr;
    for (size_t i = 0; i < scales; i++) {
        scale[i] = plain_scales ? 0x3c00 : random_half(random);
        if (shift) shift[i] = random_half(random);
    }
    m = {format.id, shape.rows, shape.cols, shape.group ? shape.group : tiles * format.columns, groups, tiles, codes,
         scale,     shift};
    if (const char* error = tercet_matrix_error(&m)) fail("refused: %s", error);

    std::vector<uint32_t> lanes((size_t)row_tiles * (size_t)tiles * 16);
    fill_codes(shape, lanes.data(), random);
    memcpy(codes, lanes.data(), lanes.size() * 4);
    weights_.values.resize((size_t)shape.rows * (size_t)shape.cols);
    for (int r = 0; r < shape.rows; r++)
        for (int c = 0; c < shape.cols; c++) {
            const size_t tile = (size_t)(r / 16) * (size_t)tiles + (size_t)format.tile(c, shape.group);
            weights_.values[(size_t)r * (size_t)shape.cols + (size_t)c] =
                (int8_t)decode(format, lanes[tile * 16 + (size_t)r % 16], format.within(c, shape.group));
        }
    return weights_;
}

// Padding rows and columns get codes too: no kernel may let them count.
void Maker::fill_codes(const Shape& shape, uint32_t* lanes, Random& random) {
    const Format& format = *shape.format;
    const size_t count = (size_t)((shape.rows + 15) / 16) * (size_t)weights_.matrix.col_tiles * 16;
    const int kind = random.below(10), range = format.high - format.low + 1;
    for (size_t i = 0; i < count; i++) {
        uint32_t lane = 0;
        if (kind == 0) lane = (uint32_t)random.bits();
        if (kind == 4) lane = ~0u; // invalid in most formats, and the largest of numbers
        for (int c = 0; kind != 0 && kind != 4 && c < format.columns; c++) {
            int value = format.low + random.below(range);
            if (kind == 1) value = format.low;
            if (kind == 2) value = format.high;
            if (kind == 3) value = c % 2 ? format.high : format.low;
            if (format.id == TERCET_B1 && value == 0) value = 1;
            lane += encode(format, value, c);
        }
        lanes[i] = lane;
    }
}

} // namespace sweep
