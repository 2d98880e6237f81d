// The packed products of every backend against integer sums in plain loops and the one formula of docs/format.md.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coverage.h"

namespace sweep {
namespace {

constexpr int MOST_TOKENS = 160;

struct Activations {
    tercet_activations view;
    std::vector<int8_t> values; // [n][cols]
};

class Products {
  public:
    explicit Products(const Options& options) : random_(options.seed) {}

    void run(const Shape& shape, int n) {
        const bool plain = random_.chance(25); // scales 1: the results are the integers
        const bool biased = !plain && random_.chance(50);
        describe("%s [%d, %d] group %d shift %d tokens %d, case %lld", shape.format->name, shape.rows, shape.cols,
                 shape.group, shape.shift, n, (long long)coverage.total());
        const Weights& w = maker_.make(shape, plain, random_);
        make_activations(w, n, plain);
        float* bias = biased ? bias_.place<float>((size_t)shape.rows, random_) : nullptr;
        for (int r = 0; biased && r < shape.rows; r++) bias[r] = random_.normal();
        expected_.resize((size_t)n * (size_t)shape.rows);
        reference(w, n, bias);
        for (int b = 0; b < (int)backends().size(); b++) {
            const tercet_backend& backend = *backends()[(size_t)b];
            if (!backend.linear[shape.format->id]) continue; // it reads this format after conversion
            check(backend, w, n, bias);
            coverage.count(shape, n, b);
        }
    }

    Random& random() { return random_; }
    Coverage coverage;

  private:
    void make_activations(const Weights& w, int n, bool plain);
    void reference(const Weights& w, int n, const float* bias);
    void check(const tercet_backend& backend, const Weights& w, int n, const float* bias);

    Random random_;
    Maker maker_;
    Activations x_;
    Arena codes_{1 << 20}, scale_{1 << 18}, sum_{1 << 18}, bias_{1 << 16}, y_{1 << 20};
    std::vector<float> expected_; // [n][rows]
};

void Products::make_activations(const Weights& w, int n, bool plain) {
    const int groups = w.matrix.groups, cols = w.matrix.cols;
    const int64_t stride = w.stride + 64 * (random_.chance(30) ? random_.between(1, 2) : 0);
    int8_t* codes = codes_.place<int8_t>((size_t)(n * stride), random_);
    float* scale = scale_.place<float>((size_t)(n * groups), random_);
    int32_t* sum = sum_.place<int32_t>((size_t)(n * groups), random_);
    x_.values.resize((size_t)n * (size_t)cols);
    memset(codes, 0, (size_t)(n * stride));
    for (int t = 0; t < n; t++) {
        const int kind = random_.below(10);
        int8_t* values = &x_.values[(size_t)t * (size_t)cols];
        for (int c = 0; c < cols; c++) {
            int value = random_.between(-127, 127);
            if (kind == 0) value = 127;
            if (kind == 1) value = -127;
            if (kind == 2) value = c % 2 ? 127 : -127;
            if (kind == 3) value = c == t % cols ? 1 : 0;
            values[c] = (int8_t)value;
        }
        memcpy(codes + t * stride, values, (size_t)cols);
        for (int g = 0; g < groups; g++) {
            int32_t total = 0;
            for (int c = g * w.width; c < cols && c < (g + 1) * w.width; c++) total += values[c];
            sum[t * groups + g] = total;
            scale[t * groups + g] = plain ? 1.0f : random_.chance(3) ? 0.0f : fabsf(random_.normal()) + 1e-3f;
        }
    }
    x_.view = {n, groups, stride, codes, scale, sum};
}

// acc = fma(sx * scale, D - S, acc), with a shift acc = fma(sx * shift, S, acc), then the bias.
void Products::reference(const Weights& w, int n, const float* bias) {
    const tercet_matrix& m = w.matrix;
    for (int r = 0; r < m.rows; r++) {
        for (int t = 0; t < n; t++) expected_[(size_t)(t * m.rows + r)] = 0;
        for (int g = 0; g < m.groups; g++) {
            const size_t at = ((size_t)(r / 16) * (size_t)m.groups + (size_t)g) * 16 + (size_t)(r % 16);
            const float alpha = from_half(m.scale[at]), gamma = m.shift ? from_half(m.shift[at]) : 0;
            const int begin = g * w.width, end = begin + w.width < m.cols ? begin + w.width : m.cols;
            for (int t = 0; t < n; t++) {
                const int8_t* x = &x_.values[(size_t)t * (size_t)m.cols];
                const int8_t* values = &w.values[(size_t)r * (size_t)m.cols];
                int32_t product = 0;
                for (int c = begin; c < end; c++) product += values[c] * x[c];
                float& acc = expected_[(size_t)(t * m.rows + r)];
                const float sx = x_.view.scale[t * m.groups + g];
                acc = fmaf(sx * alpha, (float)product, acc);
                if (m.shift) acc = fmaf(sx * gamma, (float)x_.view.sum[t * m.groups + g], acc);
            }
        }
        for (int t = 0; bias && t < n; t++) expected_[(size_t)(t * m.rows + r)] += bias[r];
    }
}

// In one call or several that split the row tiles; what lies between the rows of y must stay as it was.
void Products::check(const tercet_backend& backend, const Weights& w, int n, const float* bias) {
    const tercet_matrix& m = w.matrix;
    const int64_t y_stride = m.rows + (random_.chance(50) ? random_.between(1, 19) : 0);
    const size_t size = (size_t)((n - 1) * y_stride + m.rows);
    float* y = y_.place<float>(size, random_);
    const float untouched = -12345.678f;
    for (size_t i = 0; i < size; i++) y[i] = untouched;
    const int tiles = (m.rows + 15) / 16;
    for (int begin = 0; begin < tiles;) {
        const int end = random_.chance(60) ? tiles : random_.between(begin + 1, tiles);
        if (begin > 0 || end < tiles) // what other calls write is not touched by this one
            for (int i = 16 * end; i < m.rows; i++) y[i] = untouched;
        backend.linear[m.format](&m, &x_.view, bias, y, y_stride, begin, end);
        for (int i = 16 * end; i < m.rows; i++)
            if (y[i] != untouched) fail("%s wrote row %d, which is not in tiles %d..%d", backend.name, i, begin, end);
        begin = end;
    }
    for (int t = 0; t < n; t++) {
        expect_same(backend.name, "row", y + t * y_stride, &expected_[(size_t)(t * m.rows)], (size_t)m.rows);
        for (int64_t i = t * y_stride + m.rows; t + 1 < n && i < (t + 1) * y_stride; i++)
            if (y[i] != untouched) fail("%s wrote between the rows of y", backend.name);
    }
}

int tokens_of(int token_class, Random& random) {
    switch (token_class) {
    case 0: return 1;
    case 1: return random.between(2, 8);
    case 2: return random.between(9, 31);
    default: return random.chance(85) ? random.between(32, 49) : random.between(50, MOST_TOKENS);
    }
}

void run_cell(Products& products, const Cell& cell) {
    Random& random = products.random();
    const int n = tokens_of(cell.tokens, random), unit = cell.group ? cell.group : cell.format->columns;
    const int wide = n > 49 ? 130 : random.chance(80) ? 300 : random.chance(80) ? 700 : 1400;
    const int units = wide / unit > 0 ? random.between(1, wide / unit) : 1;
    const bool column_tail = cell.tail & 2;
    const int cols = units * unit + (column_tail ? random.between(1, unit - 1) - (cell.group ? 0 : unit) : 0);
    const int row_tiles = random.chance(80) ? random.between(1, 3) : random.between(1, n > 31 ? 6 : 9);
    const int rows = 16 * row_tiles - (cell.tail & 1 ? random.between(1, 15) : 0);
    products.run({cell.format, rows, cols, cell.group, cell.shift != 0}, n);
}

// Every width from 1 to 300, and one more or less than every block up to 4096.
void run_widths(Products& products) {
    Random& random = products.random();
    for (const Format& format : formats()) {
        for (int cols = 1; cols <= 300; cols++)
            products.run({&format, random.between(1, 40), cols, 0, random.chance(30)}, tokens_of(cols % 3, random));
        for (int block = 256; block <= 4096; block += block < 1024 ? 256 : 512)
            for (int cols = block - 1; cols <= block + 1; cols++)
                for (const int group : {0, 64})
                    if (format.has(group, cols % 64 != 0))
                        products.run({&format, random.between(1, 20), cols, group, random.chance(30)},
                                 group ? 1 : tokens_of(random.below(3), random));
        for (const int cols : {40, 3700}) // more row tiles and columns than any kernel takes at once
            for (const int most : {1, 13})
                products.run({&format, random.between(1009, 1050), cols, 0, false}, random.between(most > 1 ? 2 : 1, most));
    }
}

void expect_refused() {
    const uint16_t scale[16] = {};
    const uint8_t codes[64] = {};
    for (const Format& format : formats())
        for (const int cols : {0, -1}) {
            describe("%s with %d columns", format.name, cols);
            const tercet_matrix m = {format.id, 1, cols, format.columns, 1, 1, codes, scale, nullptr};
            if (!tercet_matrix_error(&m)) fail("not refused");
        }
}

} // namespace

int64_t sweep_widths(const Options& options) {
    Products products(options);
    expect_refused();
    run_widths(products);
    return products.coverage.total();
}

int64_t sweep_products(const Options& options) {
    Products products(options);
    do
        for (const Cell& cell : products.coverage.cells()) run_cell(products, cell);
    while (products.coverage.total() < options.cases);
    products.coverage.report(options.least, options.table);
    return products.coverage.total();
}

} // namespace sweep
