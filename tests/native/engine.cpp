// The engine with a small random model: the same logits for every instruction set, thread count, chunk, batch and way
// to split a prompt, with several engines at once and after fork. The reference is the scalar backend, one token a step.
// And a step allocates nothing.
#include "engine/engine.h"

#include <string.h>

#include <algorithm>
#include <thread>

#include "allocations.h"
#include "digest.h"
#include "engine/sampling.h"
#include "weights.h"

namespace sweep {
namespace {

using tercet::Kind;

constexpr int HIDDEN = 128, WIDE = 192, VOCAB = 600, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 32, LAYERS = 2;
constexpr int LENGTHS[] = {90, 33, 70}; // of the prompts: past a block of 64 keys
constexpr int PROMPTS = 3;

class Model {
  public:
    explicit Model(uint64_t seed) : random_(seed) {
        spec.vocab = VOCAB;
        spec.ropes.push_back({std::vector<float>(HEAD_DIM / 2), 1.0f});
        for (size_t i = 0; i < HEAD_DIM / 2; i++) spec.ropes[0].inv_freq[i] = 1.0f / (float)(1 << (i / 2));
        op(Kind::embed, {"ids"}, "x", HIDDEN).weight = matrix("embed", "q4", VOCAB, HIDDEN, 64, false);
        for (int l = 0; l < LAYERS; l++) layer(l);
        norm("final", "x", "h");
        linear("head", "q8", "h", "logits", VOCAB, HIDDEN, 0, false);
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

    std::string matrix(const std::string& name, const char* format, int rows, int cols, int group, bool shift) {
        makers_.push_back(std::make_unique<Maker>());
        for (const Format& f : formats())
            if (!strcmp(f.name, format))
                spec.matrices[name] = makers_.back()->make({&f, rows, cols, group, shift}, false, random_).matrix;
        return name;
    }

    std::string vector(const std::string& name, int size) {
        for (int i = 0; i < size; i++) spec.vectors[name].push_back(random_.normal());
        return name;
    }

    void linear(const std::string& name, const char* format, const char* in, const char* out, int rows, int cols,
                int group, bool shift) {
        tercet::OpSpec& o = op(Kind::linear, {in}, out, rows);
        o.weight = matrix(name, format, rows, cols, group, shift);
        if (random_.chance(50)) o.bias = vector(name + ".bias", rows);
    }

    void norm(const std::string& name, const char* in, const char* out) {
        tercet::OpSpec& o = op(Kind::rmsnorm, {in}, out, HIDDEN);
        o.weight = vector(name, HIDDEN);
        o.dim = HIDDEN;
        o.eps = 1e-5f;
    }

    void rotate(const char* buffer, int width, int dim) { op(Kind::rotate, {buffer}, buffer, width).dim = dim; }

    void clip(const char* buffer, int width, float limit) { op(Kind::clip, {buffer}, buffer, width).limit = limit; }

    void rope(const char* buffer, int heads) {
        tercet::OpSpec& o = op(Kind::rope, {buffer}, buffer, heads * HEAD_DIM);
        o.heads = heads;
        o.head_dim = HEAD_DIM;
    }

    void layer(int index) {
        const std::string l = std::to_string(index) + ".";
        norm(l + "norm1", "x", "h");
        rotate("h", HIDDEN, 32);
        linear(l + "q", "t2", "h", "q", HEADS * HEAD_DIM, HIDDEN, 0, false);
        linear(l + "k", "t2", "h", "k", KV_HEADS * HEAD_DIM, HIDDEN, 0, false);
        linear(l + "v", "b1", "h", "v", KV_HEADS * HEAD_DIM, HIDDEN, 32, true);
        clip("q", HEADS * HEAD_DIM, 20);
        rope("q", HEADS);
        rope("k", KV_HEADS);
        tercet::OpSpec& o = op(Kind::attention, {"q", "k", "v"}, "a", HEADS * HEAD_DIM);
        o.heads = HEADS;
        o.kv_heads = KV_HEADS;
        o.head_dim = HEAD_DIM;
        o.layer = index;
        o.window = index ? 20 : 0;
        o.factor = 1e-3f;
        linear(l + "o", "t2", "a", "o", HIDDEN, HEADS * HEAD_DIM, 64, false);
        op(Kind::add, {"x", "o"}, "x", HIDDEN);
        norm(l + "norm2", "x", "h");
        linear(l + "gate", "t2", "h", "g", WIDE, HIDDEN, 32, true);
        linear(l + "up", "q4", "h", "u", WIDE, HIDDEN, 0, false);
        op(Kind::gated, {"g", "u"}, "m", WIDE);
        rotate("m", WIDE, index ? 64 : WIDE);
        linear(l + "down", "t2", "m", "d", HIDDEN, WIDE, 0, false);
        op(Kind::add, {"x", "d"}, "x", HIDDEN);
    }

    Random random_;
    std::vector<std::unique_ptr<Maker>> makers_; // the arrays the matrices point into
};

struct Case {
    const tercet_backend* backend;
    int threads, chunk;
};

class Tester {
  public:
    explicit Tester(uint64_t seed) : model_(seed), random_(seed) {
        for (int p = 0; p < PROMPTS; p++)
            for (int i = 0; i < LENGTHS[p]; i++) ids_[p].push_back(random_.below(VOCAB));
        tercet::Engine engine(model_.spec, options({oracle(), 1, 1}));
        for (int p = 0; p < PROMPTS; p++) {
            expected_[p].resize((size_t)LENGTHS[p] * VOCAB);
            const auto sequence = engine.sequence();
            for (int i = 0; i < LENGTHS[p]; i++)
                engine.step({{sequence.get(), &ids_[p][(size_t)i], 1, 1}}, &expected_[p][(size_t)i * VOCAB]);
        }
    }

    Digest digest() const {
        Digest all;
        for (const std::vector<float>& logits : expected_) all.add(logits);
        return all;
    }

    std::unique_ptr<tercet::Engine> open(const Case& c) const {
        return std::make_unique<tercet::Engine>(model_.spec, options(c));
    }

    // A whole prompt at once.
    void whole(tercet::Engine& engine, int prompt) const {
        const auto sequence = engine.sequence();
        std::vector<float> logits((size_t)LENGTHS[prompt] * VOCAB);
        engine.step({{sequence.get(), ids_[prompt].data(), LENGTHS[prompt], LENGTHS[prompt]}}, logits.data());
        expect_same(engine.isa(), "logits", logits.data(), expected_[prompt].data(), logits.size());
    }

    // Some ids replaced by others beyond the vocabulary, which name the rows that the table would have given.
    void rows_given(tercet::Engine& engine, const tercet_backend* backend, int prompt) const {
        std::vector<int32_t> ids = ids_[prompt];
        std::vector<float> rows((size_t)LENGTHS[prompt] * HIDDEN), logits((size_t)LENGTHS[prompt] * VOCAB);
        const int split = LENGTHS[prompt] / 2, far = VOCAB + 1000; // two blocks, far from each other
        for (int i = 0; i < LENGTHS[prompt]; i++) {
            backend->row(&model_.spec.matrices.at("embed"), ids[(size_t)i], 1, &rows[(size_t)i * HIDDEN]);
            if (i % 3) ids[(size_t)i] = i < split ? VOCAB + i : far + i - split;
        }
        const std::vector<tercet::GivenRows> given = {{VOCAB, split, rows.data()},
                                                      {far, LENGTHS[prompt] - split, &rows[(size_t)split * HIDDEN]}};
        const auto sequence = engine.sequence();
        engine.step({{sequence.get(), ids.data(), LENGTHS[prompt], LENGTHS[prompt]}}, logits.data(), given);
        expect_same(engine.isa(), "logits of given rows", logits.data(), expected_[prompt].data(), logits.size());
        try {
            engine.step({{engine.sequence().get(), ids.data(), LENGTHS[prompt], 0}}, nullptr, {given[0]});
            fail("an id that names nothing was taken");
        } catch (const tercet::EngineError&) {
        }
    }

    // Random pieces of all prompts in common steps, logits wanted after any number of their last tokens, with sequences
    // rewound and forked on the way.
    void pieces(tercet::Engine& engine, Random& random) const {
        std::unique_ptr<tercet::Sequence> sequences[PROMPTS];
        for (auto& sequence : sequences) sequence = engine.sequence();
        for (bool more = true; more;) {
            more = false;
            std::vector<tercet::Part> parts;
            std::vector<int> prompts;
            int rows = 0;
            for (int p = 0; p < PROMPTS; p++) {
                const int length = (int)sequences[p]->length();
                if (length == LENGTHS[p]) continue;
                more = true;
                if (random.chance(20)) sequences[p] = sequences[p]->fork(length - (random.chance(50) ? length / 3 : 0));
                if (random.chance(10)) sequences[p]->rewind(sequences[p]->length() / 4 * 3);
                if (random.chance(20)) continue;
                const int used = (int)sequences[p]->length();
                const int count = random.chance(40) ? 1 : random.between(1, LENGTHS[p] - used);
                const int wanted = random.between(0, std::min(count, 3));
                parts.push_back({sequences[p].get(), &ids_[p][(size_t)used], count, wanted});
                rows += wanted;
                prompts.push_back(p);
            }
            if (parts.empty()) continue;
            std::vector<float> logits((size_t)rows * VOCAB);
            engine.step(parts, logits.data());
            const float* got = logits.data();
            for (size_t i = 0; i < parts.size(); i++) {
                const int p = prompts[i];
                const size_t wanted = (size_t)parts[i].wanted, first = (size_t)sequences[p]->length() - wanted;
                expect_same(engine.isa(), "last logits", got, &expected_[p][first * VOCAB], wanted * VOCAB);
                got += wanted * VOCAB;
            }
        }
    }

    // After the largest step, none asks for memory, nor does drawing a token from its logits.
    void steady(const Case& c) const {
        const auto engine = open(c);
        std::unique_ptr<tercet::Sequence> sequences[PROMPTS];
        std::vector<tercet::Part> parts, alone(1);
        for (int p = 0; p < PROMPTS; p++) {
            sequences[p] = engine->sequence();
            parts.push_back({sequences[p].get(), ids_[p].data(), 9, 1});
        }
        std::vector<float> logits((size_t)PROMPTS * VOCAB);
        tercet::SamplingOptions drawing;
        drawing.temperature = 1;
        drawing.top_p = 0.9f;
        drawing.repetition_penalty = 1.1f;
        tercet::Sampler sampler(drawing, VOCAB, *c.backend);
        int64_t before = 0;
        for (int round = 0; round < 8; round++) {
            engine->step(parts, logits.data());
            sampler.accept(sampler.sample(logits.data()));
            for (tercet::Part& part : parts) part.ids += part.count;
            alone[0] = parts[(size_t)(round % PROMPTS)];
            alone[0].count = 1;
            engine->step(alone, logits.data());
            parts[(size_t)(round % PROMPTS)].ids++;
            for (tercet::Part& part : parts) part.count = round < 4 ? 1 : 3;
            if (round == 0) before = allocations();
        }
        if (allocations() != before) fail("%lld allocations in 14 steps", (long long)(allocations() - before));
    }

  private:
    static tercet::EngineOptions options(const Case& c) {
        tercet::EngineOptions o;
        o.backend = c.backend;
        o.threads = c.threads;
        o.chunk = c.chunk;
        o.context = 100;
        return o;
    }

    Model model_;
    Random random_;
    std::vector<int32_t> ids_[PROMPTS];
    std::vector<float> expected_[PROMPTS];
};

void several_engines(const Tester& tester) {
    const auto shared = tester.open({backends()[0], 2, 16});
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&tester, &shared, i] {
            const auto own = tester.open({backends()[0], 2 + i % 2, 7});
            Random random((uint64_t)i);
            tester.whole(i % 2 ? *own : *shared, i % PROMPTS);
            tester.pieces(*own, random);
        });
    for (std::thread& thread : threads) thread.join();
}

void forked(const Tester& tester) {
    const auto engine = tester.open({backends()[0], 3, 16});
    tester.whole(*engine, 0);
    in_child([&] { tester.whole(*engine, 1); });
    tester.whole(*engine, 2);
}

void expect_counting() {
    const int64_t before = allocations();
    void* volatile memory = ::operator new(1); // volatile: or the compiler leaves it out
    ::operator delete(memory);
    if (allocations_counted() && allocations() - before != 1) fail("allocations are not counted");
}

} // namespace

int64_t sweep_engine(const Options& options) {
    int64_t cases = 0;
    expect_counting();
    const int rounds = options.cases < 200000 ? 1 : 10;
    for (int round = 0; round < rounds; round++) {
        describe("engine, round %d", round);
        const uint64_t seed = options.seed + (uint64_t)round;
        const Tester tester(seed);
        if (round == 0) tester.digest().print("logits");
        Random random(seed);
        for (const tercet_backend* backend : backends()) {
#ifdef __SANITIZE_THREAD__
            if (backend == oracle()) continue; // minutes long, and its threads are the others'
#endif
            for (const int threads : {1, 2, 3})
                for (const int chunk : {1, 5, 64}) {
                    describe("engine on %s, %d threads, chunk %d, seed %llu", backend->name, threads, chunk,
                             (unsigned long long)seed);
                    const auto engine = tester.open({backend, threads, chunk});
                    tester.whole(*engine, (int)(cases % PROMPTS));
                    tester.rows_given(*engine, backend, (int)(cases % PROMPTS));
                    tester.pieces(*engine, random);
                    tester.steady({backend, threads, chunk});
                    cases += 4;
                }
        }
        describe("several engines at once");
        several_engines(tester);
        describe("an engine after fork");
        forked(tester);
        cases += 11;
    }
    return cases;
}

} // namespace sweep
