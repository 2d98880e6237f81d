// Runs a tower's plan: pictures or texts in, one row each out, or many.
//
// Sequences of one length are computed as many at once as fill a chunk; a single one is enough for all threads: between
// two attentions each takes its block of rows through everything, in memory that stays in its cache. Keys and
// values are kept for one head at a time, in a thread's own block. What is computed for a sequence depends on nothing
// else: not on its company, threads or the instruction set. Scratch memory is sized when the tower is made; a run
// allocates nothing.
#ifndef TERCET_ENGINE_TOWER_H
#define TERCET_ENGINE_TOWER_H

#include "engine/fork_mutex.h"
#include "engine/runner.h"

namespace tercet {

struct TowerOptions {
    const tercet_backend* backend = nullptr;
    int threads = 1;
    int chunk = 256; // rows computed at once; a longer sequence is computed whole
    bool quantize = true;
    int64_t context = 0; // the longest text, or the patches of a picture
};

// f32[pictures][channels][height][width], read as patches of `patch` x `patch` pixels (tercet.program.patches).
struct Pixels {
    const float* data;
    int64_t channels, height, width, patch;
};

class Tower : Runner {
public:
    Tower(const ProgramSpec& spec, const TowerOptions& chosen)
        : Tower(compile_tower(spec, chosen.quantize, chosen.context), chosen) {}

    // result f32[n][made(length)][dim()]. Throw EngineError. Runs of several threads take turns; fork() waits for the end of one.
    void run_ids(const int32_t* ids, int64_t n, int64_t length, float* result); // i32[n][length]
    void run_pixels(const Pixels& pixels, int64_t n, float* result);

    int64_t made(int64_t tokens) const { return plan->made.of(tokens); } // rows of a sequence's result
    int64_t context() const { return options.context; }
    int dim() const { return plan->dim; }
    const char* isa() const { return backend.name; }

private:
    Tower(std::unique_ptr<TowerPlan> compiled, const TowerOptions& chosen);
    static int64_t chunk_rows(const TowerPlan& compiled, const TowerOptions& chosen);

    void run(int64_t n, int64_t tokens, float* result);
    void run_chunk();
    void run_special(const RowOp& op, int begin, int end, const Share& share) override;
    void run_attention(const Phase& phase);
    void read_patch(int64_t sequence, int64_t index, float* to) const;
    int64_t picked(const RowOp& op, int64_t sequence) const;
    int64_t rows(RowCount of) const { return sequences * of.of(length); }

    struct alignas(64) Line {
        float values[16];
    };

    const TowerOptions options;
    const std::unique_ptr<TowerPlan> plan;
    const int64_t capacity; // rows
    ForkMutex busy;
    std::vector<std::vector<Line>> cache; // of each thread: keys and values of one head

    // of the chunk at hand
    int64_t sequences = 0, length = 0;
    const int32_t* ids = nullptr; // of its first sequence; else
    Pixels pixels{};
};

} // namespace tercet
#endif
