// Towers with small random weights: the same embeddings or rows for every instruction set, thread count, chunk and company. The
// reference is the scalar backend, one sequence at a time. And a run allocates nothing.
#include "engine/tower.h"

#include <string.h>

#include "allocations.h"
#include "digest.h"
#include "weights.h"

namespace sweep {
namespace {

using tercet::Kind;

constexpr int WIDTH = 96, INNER = 160, HEADS = 3, HEAD_DIM = 32, DIM = 40, LAYERS = 2;
constexpr int PATCH = 4, SIDE = 39, CHANNELS = 3, PATCHES = 81, TOKENS = 70, VOCAB = 50, PICTURES = 5, TEXTS = 7;

// An image tower with a class row, or pooled by a probe, or that gives all its rows but the class; a text tower, causal.
enum Made { PICKED, POOLED, TEXT, ROWS };

class Model {
  public:
    Model(uint64_t seed, Made made) : random_(seed) {
        const bool pictures = made != TEXT;
        if (pictures) {
            spec.widths["patches"] = CHANNELS * PATCH * PATCH;
            linear("patch", "t2", "patches", "y", WIDTH, CHANNELS * PATCH * PATCH);
            op(Kind::prepend, {"y"}, "x", WIDTH).weight = vector("class", WIDTH);
        } else {
            spec.vocab = VOCAB;
            op(Kind::embed, {"ids"}, "x", WIDTH).weight = matrix("embed", "q4", VOCAB, WIDTH);
        }
        op(Kind::position, {"x"}, "x", WIDTH).weight = matrix("positions", "q8", (pictures ? PATCHES + 1 : TOKENS), WIDTH);
        norm("first", "x", "x");
        for (int l = 0; l < LAYERS; l++) {
            const std::string name = std::to_string(l) + ".";
            norm(name + "norm1", "x", "h");
            for (const char* part : {"q", "k", "v"}) linear(name + part, "t2", "h", part, WIDTH, WIDTH);
            attention(!pictures);
            linear(name + "o", "b1", "a", "y", WIDTH, WIDTH);
            op(Kind::add, {"x", "y"}, "x", WIDTH);
            mlp(name, "x");
            op(Kind::add, {"x", "y"}, "x", WIDTH);
        }
        if (made == ROWS) {
            op(Kind::drop, {"x"}, "z", WIDTH);
        } else if (made == POOLED) {
            norm("last", "x", "h");
            op(Kind::constant, {"h"}, "x", WIDTH).weight = vector("probe", WIDTH);
            linear("pool.q", "t2", "x", "q", WIDTH, WIDTH);
            linear("pool.k", "t2", "h", "k", WIDTH, WIDTH);
            linear("pool.v", "t2", "h", "v", WIDTH, WIDTH);
            attention(false);
            mlp("pool.", "a");
            op(Kind::add, {"a", "y"}, "z", WIDTH);
        } else {
            tercet::OpSpec& o = op(Kind::pick, pictures ? std::vector<std::string>{"x"} : std::vector<std::string>{"x", "ids"},
                                   "z", WIDTH);
            o.row = pictures ? tercet::PickedRow::first : tercet::PickedRow::end;
            o.token = 3;
        }
        linear("projection", "q8", "z", made == ROWS ? "rows" : "embedding", DIM, WIDTH);
    }

    tercet::ProgramSpec spec;

  private:
    tercet::OpSpec& op(Kind kind, std::vector<std::string> inputs, const std::string& output, int width) {
        tercet::OpSpec o;
        o.kind = kind;
        o.inputs = std::move(inputs);
        o.output = output;
        spec.widths[output] = width;
        spec.ops.push_back(o);
        return spec.ops.back();
    }

    std::string matrix(const std::string& name, const char* format, int rows, int cols) {
        makers_.push_back(std::make_unique<Maker>());
        for (const Format& f : formats())
            if (!strcmp(f.name, format))
                spec.matrices[name] = makers_.back()->make({&f, rows, cols, 0, false}, false, random_).matrix;
        return name;
    }

    std::string vector(const std::string& name, int size) {
        for (int i = 0; i < size; i++) spec.vectors[name].push_back(random_.normal());
        return name;
    }

    void linear(const std::string& name, const char* format, const char* in, const char* out, int rows, int cols) {
        tercet::OpSpec& o = op(Kind::linear, {in}, out, rows);
        o.weight = matrix(name, format, rows, cols);
        o.bias = vector(name + ".bias", rows);
    }

    void norm(const std::string& name, const char* in, const char* out) {
        tercet::OpSpec& o = op(Kind::layernorm, {in}, out, WIDTH);
        o.weight = vector(name, WIDTH);
        o.bias = vector(name + ".bias", WIDTH);
        o.dim = WIDTH;
        o.eps = 1e-5f;
    }

    void attention(bool causal) {
        tercet::OpSpec& o = op(Kind::attention, {"q", "k", "v"}, "a", WIDTH);
        o.heads = o.kv_heads = HEADS;
        o.head_dim = HEAD_DIM;
        o.factor = 1e-3f;
        o.causal = causal;
    }

    void mlp(const std::string& name, const char* in) {
        norm(name + "norm2", in, "n");
        linear(name + "up", "t2", "n", "u", INNER, WIDTH);
        op(Kind::activation, {"u"}, "m", INNER).function = TERCET_QUICK_GELU;
        linear(name + "down", "t2", "m", "y", WIDTH, INNER);
    }

    Random random_;
    std::vector<std::unique_ptr<Maker>> makers_; // the arrays the matrices point into
};

class Tester {
  public:
    Tester(uint64_t seed, Made made) : pictures_(made != TEXT), values_((made == ROWS ? PATCHES : 1) * DIM), model_(seed, made) {
        Random random(seed);
        for (int i = 0; i < PICTURES * CHANNELS * SIDE * SIDE; i++) pixels_.push_back(random.normal());
        for (int i = 0; i < TEXTS * TOKENS; i++) ids_.push_back(random.below(VOCAB));
        expected_.resize((size_t)(count() * values_));
        const auto tower = open(oracle(), 1, 1);
        for (int i = 0; i < count(); i++) run(*tower, i, 1, &expected_[(size_t)(i * values_)]);
    }

    Digest digest() const {
        Digest all;
        all.add(expected_);
        return all;
    }

    void all(const tercet_backend* backend, int threads, int chunk) const {
        const auto tower = open(backend, threads, chunk);
        std::vector<float> got(expected_.size());
        for (int first = 0, n = count(); first < count(); first += n, n = first % 3 + 1) {
            n = n < count() - first ? n : count() - first;
            run(*tower, first, n, &got[(size_t)(first * values_)]);
            if (first + n == count())
                expect_same(backend->name, "embeddings", got.data(), expected_.data(), got.size());
        }
        run(*tower, 2, 2, got.data());
        expect_same(backend->name, "some embeddings", got.data(), &expected_[(size_t)(2 * values_)], (size_t)(2 * values_));
        const int64_t before = allocations();
        run(*tower, 0, count(), got.data());
        if (allocations() != before) fail("%lld allocations in a run", (long long)(allocations() - before));
    }

  private:
    int count() const { return pictures_ ? PICTURES : TEXTS; }

    std::unique_ptr<tercet::Tower> open(const tercet_backend* backend, int threads, int chunk) const {
        tercet::TowerOptions o;
        o.backend = backend;
        o.threads = threads;
        o.chunk = chunk;
        o.context = pictures_ ? PATCHES : TOKENS;
        return std::make_unique<tercet::Tower>(model_.spec, o);
    }

    void run(tercet::Tower& tower, int first, int n, float* result) const {
        const int64_t picture = CHANNELS * SIDE * SIDE;
        if (pictures_) tower.run_pixels({&pixels_[(size_t)(first * picture)], CHANNELS, SIDE, SIDE, PATCH}, n, result);
        else tower.run_ids(&ids_[(size_t)(first * TOKENS)], n, TOKENS, result);
    }

    const bool pictures_;
    const int values_; // of a sequence's result
    const Model model_;
    std::vector<float> pixels_, expected_;
    std::vector<int32_t> ids_;
};

} // namespace

int64_t sweep_towers(const Options& options) {
    int64_t cases = 0;
    for (const Made kind : {PICKED, POOLED, TEXT, ROWS}) {
        describe("towers, kind %d", kind);
        const Tester tester(options.seed + (uint64_t)kind, kind);
        tester.digest().print("embeddings");
        for (const tercet_backend* backend : backends()) {
#ifdef __SANITIZE_THREAD__
            if (backend == oracle()) continue; // minutes long, and its threads are the others'
#endif
            for (const int threads : {1, 2, 5})
                for (const int chunk : {1, 200, 1000}) {
                    describe("tower %d on %s, %d threads, chunk %d", kind, backend->name, threads, chunk);
                    tester.all(backend, threads, chunk);
                    cases++;
                }
        }
    }
    return cases;
}

} // namespace sweep
