// What running a decoder and a tower have in common: scratch memory, and the phases that treat every row alike.
#ifndef TERCET_ENGINE_RUNNER_H
#define TERCET_ENGINE_RUNNER_H

#include <algorithm>
#include <atomic>
#include <memory>

#include "engine/plan.h"
#include "threads.h"

namespace tercet {

class Runner {
protected:
    // `rows`: the most that run at once. The plan outlives the runner. Throws EngineError.
    Runner(const tercet_backend& kernels, int thread_count, const Plan& plan, int64_t rows);
    virtual ~Runner() = default;

    static constexpr int64_t FORK_WORK = 1 << 16; // multiply-adds below which waking other threads costs more than it saves

    // job(index, thread). Jobs are taken as threads come free, so that one the system holds up does not hold up the rest.
    template <class Job> void fork_join(int jobs, const Job& job) {
        const int count = std::min(jobs, threads);
        if (count <= 1) {
            for (int i = 0; i < jobs; ++i) job(i, 0);
            return;
        }
        std::atomic<int> next{0};
        ThreadPool::instance().run(count, [&](int thread) {
            for (int i = next.fetch_add(1); i < jobs; i = next.fetch_add(1)) job(i, thread);
        });
    }

    // Where local buffers begin: with which row, and in whose memory.
    struct Share {
        int64_t origin;
        int thread;
    };

    void run_rows(const Phase& phase, int64_t n);
    void run_linears(const Phase& phase, int64_t n);
    // A group of phases: each thread takes blocks of rows through all of them, or, where rows are few, all threads share
    // one phase after the other.
    void run_group(const Phase* begin, const Phase* end, int64_t n);
    // A row operation that knows more than its row.
    virtual void run_special(const RowOp& op, int begin, int end, const Share& share) = 0;
    void look_up(const RowOp& op, int32_t id, float* to) const; // a row of the table, rotated back where it is stored so
    // Throws where the n rows that the last operation wrote are not finite.
    void check_output(int64_t n, int columns, const char* what) const;

    float* data(int buffer, int64_t row = 0, const Share& share = {}) {
        const Buffer& b = base.buffers[static_cast<size_t>(buffer)];
        if (b.slot < 0) return output + row * b.width;
        float* begin = floats() + slot_offsets[static_cast<size_t>(b.slot)];
        if (!local(b.slot)) return begin + row * b.width;
        return begin + share.thread * local_floats + (row - share.origin) * b.width;
    }
    int width(int buffer) const { return base.buffers[static_cast<size_t>(buffer)].width; }

    const tercet_backend& backend;
    const int threads;
    float* output = nullptr; // what the last operation writes: the caller's

private:
    struct alignas(64) Line { // what kernels read starts where a cache line does
        char bytes[64];
    };
    struct Area { // int8 activations
        std::vector<Line> codes;
        std::vector<float> scale;
        std::vector<int32_t> sum;
    };

    float* floats() { return reinterpret_cast<float*>(scratch.get()); }
    bool local(int slot) const {
        return static_cast<size_t>(slot) < base.local.size() && base.local[static_cast<size_t>(slot)];
    }
    // Of an area, where a row's codes, scales and sums are.
    struct Codes {
        int8_t* codes;
        float* scale;
        int32_t* sum;
    };
    Codes codes(int area, int64_t row, const Share& share);
    void run_row_ops(const Phase& phase, int64_t begin, int64_t end, const Share& share);
    void run_row_op(const RowOp& op, int begin, int end, const Share& share);
    void run_linear_tiles(const Phase& phase, int begin, int end, int64_t row, int n, const Share& share);
    void check_finite();

    const Plan& base;
    std::unique_ptr<Line[]> scratch; // pages that no row reaches are never touched
    std::vector<int64_t> slot_offsets;
    std::vector<Area> areas;
    int64_t local_floats = 0; // from a thread's local buffers to the next one's
    int64_t block_rows = 0;   // that local buffers have
    std::atomic<const std::string*> not_finite{nullptr};
};

} // namespace tercet
#endif
