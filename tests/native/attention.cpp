// The KV cache and attention: the same bytes and bits on every backend and for every number of tokens at once; and
// right, held against softmax in doubles over what the cache holds.
#include <math.h>
#include <string.h>

#include "support.h"

namespace sweep {
namespace {

constexpr int MOST_POSITIONS = 320;

struct Shape {
    tercet_attention attention;
    int32_t type;
    int positions; // stored
    size_t head_bytes() const { return tercet_kv_block_bytes(type, attention.head_dim); }
    size_t block_bytes() const { return head_bytes() * (size_t)attention.kv_heads; }
    size_t bytes() const { return block_bytes() * (size_t)((positions + TERCET_KEY_BLOCK - 1) / TERCET_KEY_BLOCK); }
    tercet_kv view(void* blocks) const { return {type, (int64_t)head_bytes(), (int64_t)block_bytes(), blocks}; }
};

// What a cache holds, read by kernels.h's words.
struct Held {
    const Shape& shape;
    const char* blocks;

    double element(const char* p, size_t index) const {
        if (shape.type == TERCET_KV_F32) return (double)((const float*)p)[index];
        if (shape.type == TERCET_KV_F16) return (double)from_half(((const uint16_t*)p)[index]);
        return ((const int8_t*)p)[index];
    }
    // Key (part 0) or value (part 1) number `dimension` of a position.
    double at(int part, int head, int position, int dimension) const {
        const size_t dim = (size_t)shape.attention.head_dim, key = (size_t)position % TERCET_KEY_BLOCK;
        const size_t elements = TERCET_KEY_BLOCK * dim;
        const size_t element_bytes = shape.type == TERCET_KV_F32 ? 4 : shape.type == TERCET_KV_F16 ? 2 : 1;
        const char* p = blocks + (size_t)(position / TERCET_KEY_BLOCK) * shape.block_bytes() +
                        (size_t)head * shape.head_bytes();
        const size_t index = part ? elements + key * dim + (size_t)dimension
                                  : (size_t)dimension * TERCET_KEY_BLOCK + key;
        const float* scales = (const float*)(p + 2 * elements * element_bytes);
        const double scale = shape.type == TERCET_KV_I8 ? (double)scales[(part ? TERCET_KEY_BLOCK : 0) + key] : 1.0;
        return element(p, index) * scale;
    }
};

class Attention {
  public:
    explicit Attention(const Options& options) : random_(options.seed + 2) {}

    void run() {
        choose();
        store();
        attend();
    }
    int64_t cases() const { return cases_; }

  private:
    void choose();
    void store();
    void attend();
    void check(const Held& held, const float* q, const float* out, int n, int position, int head, int heads) const;

    Random random_;
    Arena kv_{1 << 22}, x_{1 << 20}, q_{1 << 18}, out_{1 << 18};
    Shape shape_{};
    std::vector<char> cache_; // the scalar backend's
    int64_t cases_ = 0;
};

void Attention::choose() {
    const int kv_heads = random_.between(1, 2), shared = random_.chance(60) ? random_.between(1, 4) : random_.between(5, 9);
    const int dim = random_.chance(30) ? 16 * random_.between(1, 8) : random_.between(1, 100);
    shape_.attention = {kv_heads * shared, kv_heads, dim, random_.chance(50) ? random_.between(1, 100) : 0,
                        2.0f / sqrtf((float)dim), 0};
    shape_.type = random_.below(3);
    shape_.positions = random_.chance(60) ? random_.between(1, 70) : random_.between(60, MOST_POSITIONS);
    if (random_.chance(30)) {
        shape_.attention.keys = shape_.positions;
        shape_.attention.window = 0;
    }
    describe("attention of %d heads, %d KV heads, dimension %d, window %d, keys %d, cache type %d, %d positions, case %lld",
             kv_heads * shared, kv_heads, dim, shape_.attention.window, shape_.attention.keys, shape_.type,
             shape_.positions, (long long)cases_);
}

// Every backend fills its own cache over the same rubbish; they must come out alike, and near what was given.
void Attention::store() {
    const int width = shape_.attention.kv_heads * shape_.attention.head_dim;
    const size_t count = (size_t)(shape_.positions * width);
    float* x = x_.place<float>(2 * count, random_);
    for (size_t i = 0; i < 2 * count; i++) x[i] = random_.normal();
    std::vector<char> rubbish(shape_.bytes());
    for (char& byte : rubbish) byte = (char)random_.bits();
    std::vector<const tercet_backend*> all = {oracle()};
    all.insert(all.end(), backends().begin(), backends().end());
    for (size_t b = 0; b < all.size(); b++) {
        struct alignas(64) Line {
            char bytes[64];
        };
        char* blocks = (char*)kv_.place<Line>(shape_.bytes() / 64, random_);
        memcpy(blocks, rubbish.data(), rubbish.size());
        const tercet_kv kv = shape_.view(blocks);
        for (int p = 0; p < shape_.positions; p++)
            all[b]->kv_store(&kv, x + p * width, x + (int)count + p * width, shape_.attention.kv_heads,
                             shape_.attention.head_dim, p);
        if (b == 0) cache_.assign(blocks, blocks + shape_.bytes());
        else if (memcmp(cache_.data(), blocks, shape_.bytes()) != 0) fail("%s stores other bytes", all[b]->name);
        cases_ += b > 0;
    }
    const Held held = {shape_, cache_.data()};
    for (int p = 0; p < shape_.positions; p++)
        for (int i = 0; i < width; i++)
            for (int part = 0; part < 2; part++) {
                const float* row = x + part * (int)count + p * width;
                const int dim = shape_.attention.head_dim, head = i / dim;
                float most = 0;
                for (int d = head * dim; d < (head + 1) * dim; d++) most = fmaxf(most, fabsf(row[d]));
                const double near = shape_.type == TERCET_KV_F32   ? 0
                                    : shape_.type == TERCET_KV_F16 ? fabs((double)row[i]) * 0x1p-11 + 0x1p-25
                                                                   : (double)most / 253.9;
                const double got = held.at(part, head, p, i % dim);
                if (!(fabs(got - (double)row[i]) <= near)) fail("stored %g for %g", got, (double)row[i]);
            }
}

// Some last positions, a token alone or many at once, all heads of a KV head or some.
void Attention::attend() {
    const tercet_attention& a = shape_.attention;
    const int n = random_.chance(50) ? 1 : random_.between(1, shape_.positions < 20 ? shape_.positions : 20);
    const int position = shape_.positions - n, shared = a.heads / a.kv_heads;
    const int heads = random_.between(1, shared);
    const int head = random_.below(a.kv_heads) * shared + random_.below(shared - heads + 1);
    const size_t size = (size_t)(n * a.heads * a.head_dim);
    float* q = q_.place<float>(size, random_);
    for (size_t i = 0; i < size; i++) q[i] = random_.normal();
    struct alignas(64) Line {
        char bytes[64];
    };
    char* blocks = (char*)kv_.place<Line>(shape_.bytes() / 64, random_);
    memcpy(blocks, cache_.data(), cache_.size());
    const tercet_kv kv = shape_.view(blocks);
    std::vector<float> expected(size, -12345.678f);
    for (int t = 0; t < n; t++) // one token and head at a time
        for (int h = head; h < head + heads; h++) {
            const int at = t * a.heads * a.head_dim;
            oracle()->attention(&a, &kv, q + at, &expected[(size_t)at], 1, position + t, h, 1);
        }
    check({shape_, cache_.data()}, q, expected.data(), n, position, head, heads);
    for (const tercet_backend* backend : backends()) {
        float* out = out_.place<float>(size, random_);
        for (size_t i = 0; i < size; i++) out[i] = -12345.678f;
        backend->attention(&a, &kv, q, out, n, position, head, heads);
        expect_same(backend->name, "attention", out, expected.data(), size);
        cases_++;
    }
}

void Attention::check(const Held& held, const float* q, const float* out, int n, int position, int head,
                      int heads) const {
    const tercet_attention& a = shape_.attention;
    const int dim = a.head_dim;
    for (int t = 0; t < n; t++)
        for (int h = head; h < head + heads; h++) {
            const float* query = q + (t * a.heads + h) * dim;
            const int last = a.keys ? a.keys - 1 : position + t, kv_head = h / (a.heads / a.kv_heads);
            const int first = a.window && last >= a.window ? last - a.window + 1 : 0;
            std::vector<double> sum((size_t)dim), weights;
            double total = 0, peak = -INFINITY;
            for (int p = first; p <= last; p++) {
                double score = 0;
                for (int d = 0; d < dim; d++) score += (double)query[d] * held.at(0, kv_head, p, d);
                weights.push_back(score * (double)a.scale);
                peak = fmax(peak, weights.back());
            }
            for (int p = first; p <= last; p++) {
                const double weight = exp(weights[(size_t)(p - first)] - peak);
                total += weight;
                for (int d = 0; d < dim; d++) sum[(size_t)d] += weight * held.at(1, kv_head, p, d);
            }
            for (int d = 0; d < dim; d++) {
                const double got = (double)out[(t * a.heads + h) * dim + d], want = sum[(size_t)d] / total;
                if (!(fabs(got - want) <= 3e-5)) fail("dimension %d is %g where %g is right", d, got, want);
            }
        }
}

} // namespace

int64_t sweep_attention(const Options& options) {
    Attention attention(options);
    while (attention.cases() < options.cases / 20) attention.run();
    return attention.cases();
}

} // namespace sweep
