// The float functions: every backend gives the bits of the scalar one, and these are right, held against doubles.
#include <float.h>
#include <math.h>
#include <string.h>

#include "weights.h"

namespace sweep {
namespace {

constexpr size_t ROOM = 1 << 20;

double value_of(const tercet_matrix& m, const Weights* packed, int r, int c) {
    const size_t at = (size_t)r * (size_t)m.cols + (size_t)c;
    if (m.format == TERCET_F16) return (double)from_half(((const uint16_t*)m.codes)[at]);
    if (m.format == TERCET_F32) return (double)((const float*)m.codes)[at];
    const size_t scale = ((size_t)(r / 16) * (size_t)m.groups + (size_t)(c / packed->width)) * 16 + (size_t)(r % 16);
    return (double)from_half(m.scale[scale]) * packed->value(r, c) +
           (m.shift ? (double)from_half(m.shift[scale]) : 0.0);
}

class Floats {
  public:
    explicit Floats(const Options& options) : random_(options.seed + 1) {}

    void quantize();
    void not_finite();
    void norms();
    void rope();
    void elementwise();
    void rotate();
    void matrix();
    int64_t cases() const { return cases_; }

  private:
    int size() { return random_.chance(70) ? random_.between(1, 100) : random_.between(100, 700); }

    float* random_array(Arena& arena, int count, float magnitude = 1) {
        float* p = arena.place<float>((size_t)count, random_);
        for (int i = 0; i < count; i++) p[i] = random_.normal() * magnitude;
        return p;
    }

    // Runs f(backend, output) for all; the outputs must have the same bits. `start`: what the output holds before.
    template <class F>
    const std::vector<float>& everywhere(const char* what, int count, const float* start, F&& f) {
        describe("%s of %d values, case %lld", what, count, (long long)cases_);
        const auto run = [&](const tercet_backend* backend) {
            float* y = out_.place<float>((size_t)count, random_);
            for (int i = 0; i < count; i++) y[i] = start ? start[i] : -12345.678f;
            f(backend, y);
            return y;
        };
        const float* scalar = run(oracle());
        expected_.assign(scalar, scalar + count);
        for (const tercet_backend* backend : backends()) {
            expect_same(backend->name, what, run(backend), expected_.data(), (size_t)count);
            cases_++;
        }
        return expected_;
    }

    static void expect_near(double got, double want, double tolerance) {
        if (!(fabs(got - want) <= tolerance)) fail("%.9g where %.9g is right (within %.3g)", got, want, tolerance);
    }

    Random random_;
    Maker maker_;
    Arena a_{ROOM}, b_{ROOM}, c_{ROOM}, out_{ROOM}, codes_{ROOM}, sums_{1 << 16};
    std::vector<float> expected_;
    int64_t cases_ = 0;
};

// Exact: amax, 127/amax, x times it to nearest even, in float32.
void Floats::quantize() {
    const int cols = size(), n = random_.between(1, 4), group = random_.chance(50) ? 32 << random_.below(3) : cols;
    const int groups = (cols + group - 1) / group, x_stride = cols + random_.below(3);
    const int64_t stride = (cols + 63) / 64 * 64 + 64 * random_.below(2);
    describe("quantize [%d, %d] group %d, case %lld", n, cols, group, (long long)cases_);
    float* x = random_array(a_, (n - 1) * x_stride + cols, ldexpf(1.0f, random_.between(-140, 120)));
    for (int t = 0; t < n; t++)
        for (int i = 0; random_.chance(30) && i < cols; i++) // ties, zeros and what rounds to zero
            x[t * x_stride + i] = (float)random_.between(-254, 254) * 0.5f * (random_.chance(20) ? 1e-30f : 1.0f);
    for (const tercet_backend* backend : backends()) {
        int8_t* codes = codes_.place<int8_t>((size_t)(n * stride), random_);
        float* scale = b_.place<float>((size_t)(n * groups), random_);
        int32_t* sum = sums_.place<int32_t>((size_t)(n * groups), random_);
        memset(codes, 99, (size_t)(n * stride));
        if (backend->quantize(x, x_stride, n, cols, group, groups, stride, codes, scale, sum))
            fail("%s takes finite values for others", backend->name);
        for (int t = 0; t < n; t++) {
            for (int g = 0; g < groups; g++) {
                const int begin = g * group, end = begin + group < cols ? begin + group : cols;
                float amax = 0;
                for (int c = begin; c < end; c++) amax = fmaxf(amax, fabsf(x[t * x_stride + c]));
                const float inverse = 127.0f / amax;
                const bool zero = amax == 0 || inverse > FLT_MAX;
                int total = 0;
                for (int c = begin; c < end; c++) {
                    const int code = zero ? 0 : (int)nearbyintf(x[t * x_stride + c] * inverse);
                    if (codes[t * stride + c] != code) fail("%s: code %d", backend->name, c);
                    total += code;
                }
                const float want = zero ? 0 : amax / 127.0f;
                expect_same(backend->name, "scale", &scale[t * groups + g], &want, 1);
                if (sum[t * groups + g] != total) fail("%s: sum of group %d", backend->name, g);
            }
            for (int64_t c = cols; c < stride; c++)
                if (codes[t * stride + c] != 0) fail("%s: padding %lld is not 0", backend->name, (long long)c);
        }
        cases_++;
    }
}

void Floats::not_finite() {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const int cols = size();
    const int64_t stride = (cols + 63) / 64 * 64;
    float* x = random_array(a_, cols);
    x[random_.below(cols)] = bad[random_.below(3)];
    describe("quantize of %d values that are not all finite", cols);
    for (const tercet_backend* backend : backends()) {
        if (!backend->quantize(x, cols, 1, cols, cols, 1, stride, codes_.place<int8_t>((size_t)stride, random_),
                               b_.place<float>(1, random_), sums_.place<int32_t>(1, random_)))
            fail("%s accepts them", backend->name);
        cases_++;
    }
}

void Floats::norms() {
    const int dim = size(), rows = random_.between(1, 3), count = rows * dim;
    const float eps = random_.chance(50) ? 1e-5f : 1e-6f;
    const float* x = random_array(a_, count, ldexpf(1.0f, random_.between(-6, 6)));
    const float* w = random_array(b_, dim);
    const float* bias = random_.chance(60) ? random_array(c_, dim) : nullptr;
    const bool in_place = random_.chance(30);
    const std::vector<float> rms = everywhere("rmsnorm", count, x, [&](const tercet_backend* backend, float* y) {
        backend->rmsnorm(in_place ? y : x, w, eps, rows, dim, y);
    });
    const std::vector<float> layer = everywhere("layernorm", count, x, [&](const tercet_backend* backend, float* y) {
        backend->layernorm(in_place ? y : x, w, bias, eps, rows, dim, y);
    });
    for (int r = 0; r < rows; r++) {
        double mean = 0, squares = 0, variance = 0;
        for (int i = 0; i < dim; i++) mean += (double)x[r * dim + i] / dim;
        for (int i = 0; i < dim; i++) {
            squares += pow((double)x[r * dim + i], 2) / dim;
            variance += pow((double)x[r * dim + i] - mean, 2) / dim;
        }
        for (int i = 0; i < dim; i++) {
            const size_t at = (size_t)(r * dim + i);
            const double v = (double)x[at] * w[i] / sqrt(squares + (double)eps);
            expect_near((double)rms[at], v, 1e-5 * fabs(v) + 1e-7);
            const double factor = 1 / sqrt(variance + (double)eps), scaled = ((double)x[at] - mean) * factor * w[i];
            const double noise = 1e-5 * (fabs((double)x[at]) + fabs(mean)) * factor; // of x - mean
            expect_near((double)layer[at], scaled + (bias ? (double)bias[i] : 0.0), 1e-5 * fabs(scaled) + noise + 1e-6);
        }
    }
}

void Floats::rope() {
    const int heads = random_.between(1, 4), dim = random_.between(2, 100), half = random_.between(1, dim / 2);
    const float* x = random_array(a_, heads * dim);
    const float *c = random_array(b_, half), *s = random_array(c_, half);
    const std::vector<float>& y = everywhere("rope", heads * dim, x, [&](const tercet_backend* backend, float* out) {
        backend->rope(out, c, s, heads, dim, 2 * half);
    });
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < dim; i++) {
            const double a = (double)x[h * dim + i % half], b = (double)x[h * dim + (i % half) + half];
            const double cosine = (double)c[i % half], sine = (double)s[i % half];
            const double want = i < half ? a * cosine - b * sine
                                : i < 2 * half ? b * cosine + a * sine : (double)x[h * dim + i];
            expect_near((double)y[(size_t)(h * dim + i)], want, 1e-5);
        }
}

void Floats::elementwise() {
    const int n = size(), function = random_.below(3);
    const float *a = random_array(a_, n, random_.chance(20) ? 60.0f : 3.0f), *b = random_array(b_, n);
    const std::vector<float> act = everywhere("activate", n, nullptr, [&](const tercet_backend* backend, float* y) {
        backend->activate(function, a, n, y);
    });
    const std::vector<float> gated = everywhere("gated", n, nullptr, [&](const tercet_backend* backend, float* y) {
        backend->gated(function, a, b, n, y);
    });
    const std::vector<float> sum = everywhere("add", n, nullptr, [&](const tercet_backend* backend, float* y) {
        backend->add(a, b, n, y);
    });
    const float limit = ldexpf(1.0f, random_.between(-3, 3));
    const std::vector<float> clipped = everywhere("clip", n, nullptr, [&](const tercet_backend* backend, float* y) {
        backend->clip(a, n, limit, y);
    });
    for (int i = 0; i < n; i++) {
        const float within = a[i] > limit ? limit : a[i] < -limit ? -limit : a[i];
        expect_same("all", "clip", &clipped[(size_t)i], &within, 1);
        const double x = (double)a[i];
        const double tanh_of = sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x);
        const double want = function == TERCET_SILU ? x / (1 + exp(-x)) : function == TERCET_GELU
                            ? 0.5 * x * (1 + erf(x / sqrt(2.0))) : 0.5 * x * (1 + tanh(tanh_of));
        const float product = act[(size_t)i] * b[i], total = a[i] + b[i];
        expect_near((double)act[(size_t)i], want, 1e-6 * (1 + fabs(x)));
        expect_same("all", "gated", &gated[(size_t)i], &product, 1);
        expect_same("all", "add", &sum[(size_t)i], &total, 1);
    }
}

// The definition: +-1/sqrt(dim) by the parity of the bits that row and column share, times Paley's sign.
void Floats::rotate() {
    static const int orders[] = {1, 1, 1, 12, 20, 28, 36, 60};
    const int order = orders[random_.below(8)], run = 1 << random_.below(order == 1 ? 10 : 6), dim = order * run;
    const int n = dim * random_.between(1, dim < 16 ? 40 : 3);
    const float* x = random_array(a_, n, ldexpf(1.0f, random_.between(-20, 20)));
    const bool in_place = random_.chance(50);
    std::vector<float> signs((size_t)(order * order), 1.0f);
    if (order > 1) tercet_hadamard_signs(order, signs.data());
    for (int i = 0; i < order; i++)
        for (int j = 0; j <= i; j++) { // orthogonal rows
            float product = 0;
            for (int k = 0; k < order; k++) product += signs[(size_t)(i * order + k)] * signs[(size_t)(j * order + k)];
            const float want = i == j ? (float)order : 0.0f;
            expect_same("all", "signs", &product, &want, 1);
        }
    const tercet_rotation rotation{dim, tercet_hadamard_order(dim), signs.data()};
    const std::vector<float>& y = everywhere("rotate", n, x, [&](const tercet_backend* backend, float* out) {
        backend->rotate(in_place ? out : x, n, &rotation, out);
    });
    for (int i = 0; i < n; i++) {
        const float* block = x + i / dim * dim;
        const float* row = &signs[(size_t)(i % dim / run * order)];
        double sum = 0, largest = 0;
        for (int j = 0; j < dim; j++) {
            sum += (__builtin_parity((unsigned)(i % run & j % run)) ? -1 : 1) * (double)row[j / run] * (double)block[j];
            largest = fmax(largest, fabs((double)block[j]));
        }
        expect_near((double)y[(size_t)i], sum / sqrt((double)dim), 1e-6 * sqrt((double)dim) * largest);
    }
}

// Rows dequantized, and products with float activations, of every format.
void Floats::matrix() {
    const int rows = random_.between(1, 40), cols = size(), n = random_.chance(50) ? random_.between(1, 4) : random_.between(5, 20);
    const int kind = random_.below((int)formats().size() + 2);
    const Weights* packed = nullptr;
    tercet_matrix m = {};
    if (kind < (int)formats().size()) {
        const Format& format = formats()[(size_t)kind];
        packed = &maker_.make({&format, rows, cols, 0, random_.chance(50)}, false, random_);
        m = packed->matrix;
    } else if (kind == (int)formats().size()) {
        uint16_t* codes = c_.place<uint16_t>((size_t)(rows * cols), random_);
        for (int i = 0; i < rows * cols; i++) codes[i] = random_half(random_);
        m = {TERCET_F16, rows, cols, cols, 1, cols, codes, nullptr, nullptr};
    } else m = {TERCET_F32, rows, cols, cols, 1, cols, random_array(c_, rows * cols), nullptr, nullptr};

    const int index = random_.below(rows);
    const float factor = random_.chance(50) ? 1.0f : 3.3f;
    const std::vector<float> row = everywhere("row", cols, nullptr, [&](const tercet_backend* backend, float* y) {
        backend->row(&m, index, factor, y);
    });
    for (int c = 0; c < cols; c++) {
        const float want = ((float)value_of(m, packed, index, c) + 0.0f) * factor;
        expect_same("all", "row", &row[(size_t)c], &want, 1);
    }

    const int x_stride = cols + random_.below(3), y_stride = rows + random_.below(3), tiles = (rows + 15) / 16;
    const int split = random_.below(tiles);
    const float *x = random_array(a_, (n - 1) * x_stride + cols), *bias = random_.chance(50) ? random_array(b_, rows) : nullptr;
    const std::vector<float> y = everywhere("linear_float", (n - 1) * y_stride + rows, nullptr,
                                            [&](const tercet_backend* backend, float* out) {
        backend->linear_float(&m, x, x_stride, n, bias, out, y_stride, 0, split);
        backend->linear_float(&m, x, x_stride, n, bias, out, y_stride, split, tiles);
    });
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < n; t++) {
            double sum = bias ? (double)bias[r] : 0.0, magnitude = 1;
            for (int c = 0; c < cols; c++) {
                const double product = value_of(m, packed, r, c) * (double)x[t * x_stride + c];
                sum += product;
                magnitude += fabs(product);
            }
            expect_near((double)y[(size_t)(t * y_stride + r)], sum, 2e-6 * magnitude);
        }
}

} // namespace

int64_t sweep_floats(const Options& options) {
    Floats floats(options);
    while (floats.cases() < options.cases / 5) {
        floats.quantize();
        floats.not_finite();
        floats.norms();
        floats.rope();
        floats.elementwise();
        floats.rotate();
        floats.matrix();
    }
    return floats.cases();
}

} // namespace sweep
