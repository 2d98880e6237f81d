// One number for each area of what the kernels compute, from inputs that depend on the seed alone. Backends must agree
// here, and so must machines: run it on each and compare what is printed.
#include "digest.h"

#include <algorithm>

#include "engine/rope.h"
#include "engine/sampling.h"
#include "weights.h"

namespace sweep {
namespace {

constexpr int TOKENS[] = {1, 2, 3, 4, 5, 6, 7, 8, 13, 48, 50, 97};
constexpr int MOST = 97; // of TOKENS

// Of many magnitudes; one in eight 0.
std::vector<float> floats(size_t count, int exponents, Random& random) {
    std::vector<float> x(count);
    for (float& v : x) {
        const int up = random.between(-exponents, exponents);
        const float power = up < 0 ? 1.0f / (float)(1 << -up) : (float)(1 << up);
        v = random.below(8) == 0 ? 0.0f : random.unit() * power;
    }
    return x;
}

std::vector<uint16_t> halves(size_t count, Random& random) {
    std::vector<uint16_t> x(count);
    for (uint16_t& v : x) v = random_half(random);
    return x;
}

// Quantized tokens times a packed matrix.
void multiply(const tercet_backend& b, const Weights& w, Random& random, Digest& digest) {
    const tercet_matrix& m = w.matrix;
    const std::vector<float> x = floats((size_t)(MOST * m.cols), 3, random), bias = floats((size_t)m.rows, 3, random);
    std::vector<int8_t> codes((size_t)(MOST * w.stride));
    std::vector<float> scale((size_t)(MOST * m.groups));
    std::vector<int32_t> sum(scale.size());
    const int group = m.groups == 1 ? m.cols : m.group;
    if (b.quantize(x.data(), m.cols, MOST, m.cols, group, m.groups, w.stride, codes.data(), scale.data(), sum.data()))
        fail("%s: finite values taken for others", b.name);
    digest.add(codes);
    digest.add(scale);
    digest.add(sum);
    for (const int n : TOKENS) {
        const tercet_activations a = {n, m.groups, w.stride, codes.data(), scale.data(), sum.data()};
        std::vector<float> y((size_t)(n * m.rows));
        b.linear[m.format](&m, &a, n % 2 ? bias.data() : nullptr, y.data(), m.rows, 0, (m.rows + 15) / 16);
        digest.add(y);
    }
}

void multiply_floats(const tercet_backend& b, const tercet_matrix& m, Random& random, Digest& digest) {
    const std::vector<float> x = floats((size_t)(9 * m.cols), 6, random), bias = floats((size_t)m.rows, 3, random);
    std::vector<float> y((size_t)(9 * m.rows)), row((size_t)m.cols);
    b.linear_float(&m, x.data(), m.cols, 9, bias.data(), y.data(), m.rows, 0, (m.rows + 15) / 16);
    digest.add(y);
    for (int r = 0; r < m.rows; r += 5) {
        b.row(&m, r, 1.7f, row.data());
        digest.add(row);
    }
}

void products(const tercet_backend& b, Random& random, Digest& digest) {
    Maker maker;
    for (const Format& format : formats()) {
        if (format.id == TERCET_T19) continue; // not every instruction set reads it in place
        for (const int group : {0, 64, 128, 1408})
            for (const bool shift : {false, true}) {
                const int cols = group == 1408 ? 2816 : 64 * random.between(1, 9) - (group ? 0 : random.below(64));
                const Shape shape = {&format, random.between(20, 90), cols, group < cols ? group : 0, shift};
                describe("digest of %s [%d, %d] group %d", format.name, shape.rows, cols, shape.group);
                const Weights& w = maker.make(shape, false, random);
                multiply(b, w, random, digest);
                multiply_floats(b, w.matrix, random, digest);
            }
    }
}

void operations(const tercet_backend& b, Random& random, Digest& digest) {
    for (const int n : {1, 5, 16, 47, 64, 576, 2563}) {
        const std::vector<float> x = floats((size_t)(2 * n), 20, random), w = floats((size_t)n, 4, random);
        std::vector<float> y(x.size());
        b.rmsnorm(x.data(), w.data(), 1e-5f, 2, n, y.data());
        digest.add(y);
        for (const float* bias : {x.data(), (const float*)nullptr}) {
            b.layernorm(x.data(), w.data(), bias, 1e-5f, 2, n, y.data());
            digest.add(y);
        }
        for (int f = TERCET_SILU; f <= TERCET_QUICK_GELU; f++) {
            b.activate(f, x.data(), 2 * n, y.data());
            digest.add(y);
            b.gated(f, x.data(), y.data(), 2 * n, y.data());
            digest.add(y);
        }
        b.add(x.data(), x.data() + n, n, y.data());
        digest.add(y);
        b.clip(x.data(), 2 * n, 0.75f, y.data());
        digest.add(y);
        for (int dim = 1; dim <= 2 * n; dim++) {
            const int order = tercet_hadamard_order(dim);
            if (!order || 2 * n % dim) continue;
            std::vector<float> signs((size_t)order * (size_t)order);
            if (order > 1) tercet_hadamard_signs(order, signs.data());
            const tercet_rotation rotation{dim, order, signs.data()};
            b.rotate(x.data(), 2 * n, &rotation, y.data());
            digest.add(y);
        }
        std::vector<uint16_t> half = halves((size_t)(n * 20), random);
        multiply_floats(b, {TERCET_F16, 20, n, 0, 0, 0, half.data(), nullptr, nullptr}, random, digest);
        const std::vector<float> matrix = floats((size_t)(n * 20), 4, random);
        multiply_floats(b, {TERCET_F32, 20, n, 0, 0, 0, matrix.data(), nullptr, nullptr}, random, digest);
    }
}

// Four heads of two KV heads, rotated, stored and attended to, with and without a window.
void attention(const tercet_backend& b, Random& random, Digest& digest) {
    for (const int dim : {8, 40, 64, 80, 128})
        for (const tercet_kv_type type : {TERCET_KV_F16, TERCET_KV_F32, TERCET_KV_I8}) {
            const int positions = 192;
            const size_t block = tercet_kv_block_bytes(type, dim);
            std::vector<float> cache(2 * block * (positions / TERCET_KEY_BLOCK) / 4);
            const tercet_kv kv = {type, (int64_t)block, (int64_t)(2 * block), cache.data()};
            const tercet::RopeSpec rope = {floats((size_t)dim / 2, 3, random), 1.25f};
            std::vector<float> cos((size_t)dim / 2), sin(cos.size()), q((size_t)(positions * 4 * dim)), out(q.size());
            for (int p = 0; p < positions; p++) {
                const std::vector<float> now = floats((size_t)(4 * dim), 2, random);
                float* turned = q.data() + p * 4 * dim;
                std::copy(now.begin(), now.end(), turned);
                std::vector<float> k = floats((size_t)(2 * dim), 2, random);
                tercet::rope_angles(rope, p, cos.data(), sin.data());
                b.rope(turned, cos.data(), sin.data(), 4, dim, dim / 4 * 2);
                b.rope(k.data(), cos.data(), sin.data(), 2, dim, dim / 4 * 2);
                b.kv_store(&kv, k.data(), floats((size_t)(2 * dim), 3, random).data(), 2, dim, p);
            }
            for (const int window : {0, 70})
                for (int p = 0, n = 1; p < positions; p += n, n = n % 40 + 13) {
                    const tercet_attention a = {4, 2, dim, window, 0.3f, 0};
                    n = std::min(n, positions - p);
                    for (const int head : {0, 2})
                        b.attention(&a, &kv, q.data() + p * 4 * dim, out.data() + p * 4 * dim, n, p, head, 2);
                    if (p + n == positions) digest.add(out);
                }
            digest.add(cache);
        }
}

void sampling(const tercet_backend& b, Random& random, Digest& digest) {
    tercet::SamplingOptions options;
    options.temperature = 0.8f;
    options.top_k = 500;
    options.top_p = 0.95f;
    options.min_p = 0.001f;
    options.repetition_penalty = 1.1f;
    options.seed = random.bits();
    tercet::Sampler sampler(options, 5000, b);
    std::vector<int32_t> ids;
    for (int i = 0; i < 64; i++) {
        ids.push_back(sampler.sample(floats(5000, 4, random).data()));
        sampler.accept(ids.back());
    }
    digest.add(ids);
}

} // namespace

int64_t sweep_digest(const Options& options) {
    struct Area {
        const char* name;
        void (*run)(const tercet_backend&, Random&, Digest&);
    };
    const Area areas[] = {
        {"products", products}, {"operations", operations}, {"attention", attention}, {"sampling", sampling}};
    int64_t cases = 0;
    for (const Area& area : areas) {
        Digest first;
        for (const tercet_backend* backend : backends()) {
            Random random(options.seed);
            Digest digest;
            area.run(*backend, random, digest);
            if (cases++ % (int64_t)backends().size() == 0) first = digest;
            if (digest != first) fail("%s: %s and %s differ", area.name, backend->name, backends()[0]->name);
        }
        first.print(area.name);
    }
    return cases;
}

} // namespace sweep
