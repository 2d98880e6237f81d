// Runs a plan: a step takes new tokens of several sequences at once and gives logits.
//
// A token's results do not depend on what else is in the step, on the chunk it falls in, on threads or on the
// instruction set: rows are independent, and the kernels add in one order. Scratch memory is sized when the engine is
// made; a step allocates nothing once the largest step has been seen.
#ifndef TERCET_ENGINE_ENGINE_H
#define TERCET_ENGINE_ENGINE_H

#include "engine/fork_mutex.h"
#include "engine/runner.h"
#include "engine/sequence.h"

namespace tercet {

struct EngineOptions {
    const tercet_backend* backend = nullptr;
    int threads = 1;
    int chunk = 128; // tokens computed at once
    bool quantize = true;
    tercet_kv_type kv = TERCET_KV_F16;
    int64_t context = 0;
};

// New tokens of one sequence; logits are wanted after the last `wanted` of them.
struct Part {
    Sequence* sequence;
    const int32_t* ids;
    int64_t count;
    int64_t wanted;
};

// Rows from elsewhere, f32[count][width]: what the ids from `first` on stand for, where they lie beyond the vocabulary.
struct GivenRows {
    int32_t first;
    int64_t count;
    const float* rows;
};

class Engine : Runner {
public:
    Engine(const ProgramSpec& spec, const EngineOptions& chosen)
        : Engine(compile_decoder(spec, chosen.quantize), chosen) {}

    std::unique_ptr<Sequence> sequence() const { return std::make_unique<Sequence>(cache); }

    // logits f32[wanted of all parts][vocab], part by part. Throws EngineError and leaves every sequence as it was.
    // Steps of several threads run one after the other; fork() waits for the end of a step.
    void step(const std::vector<Part>& parts, float* logits, const std::vector<GivenRows>& given = {});

    int vocab() const { return plan->vocab; }
    int embedding_width() const { return plan->width; }
    const char* isa() const { return backend.name; }
    ForkMutex& lock() { return busy; }

private:
    struct Row {
        Sequence* sequence;
        int64_t position;
        int32_t id;
        bool wanted;
    };
    struct Unit { // queries of one KV head that one thread computes
        int row, tokens, head, heads;
    };

    Engine(std::unique_ptr<DecoderPlan> compiled, const EngineOptions& chosen);
    void check(const std::vector<Part>& parts);
    int64_t run_chunk(); // on `rows`; returns the rows of logits written
    void prepare_rope();
    const float* given_row(int32_t id) const; // or NULL
    void embed(const RowOp& op, int32_t id, float* to) const;
    void run_special(const RowOp& op, int begin, int end, const Share& share) override;
    void run_attention(const Phase& phase);
    bool follows(int r) const;
    void deal_attention(const tercet_attention& shape, int sharers);
    void select(const Phase& phase);

    const EngineOptions options;
    const std::unique_ptr<DecoderPlan> plan;
    std::shared_ptr<const CacheShape> cache;
    ForkMutex busy;
    std::vector<std::vector<float>> cos, sin; // of each rope: [chunk][rotary_dim / 2]
    std::vector<Row> rows;                    // of the chunk
    std::vector<Unit> units;                  // of the attention at hand
    std::vector<const Sequence*> named;       // by the step, sorted
    const std::vector<GivenRows>* given = nullptr; // of the step
};

} // namespace tercet
#endif
