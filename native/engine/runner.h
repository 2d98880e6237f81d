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

    void run_rows(const Phase& phase, int64_t n);
    void run_linears(const Phase& phase, int64_t n);
    // A row operation that knows more than its row.
    virtual void run_special(const RowOp& op, int begin, int end) = 0;
    // Throws where the n rows that the last operation wrote are not finite.
    void check_output(int64_t n, int columns, const char* what) const;

    float* data(int buffer, int64_t row = 0) {
        const Buffer& b = base.buffers[static_cast<size_t>(buffer)];
        float* begin = b.slot < 0 ? output : floats() + slot_offsets[static_cast<size_t>(b.slot)];
        return begin + row * b.width;
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
    int8_t* codes(int area, int64_t row) {
        return reinterpret_cast<int8_t*>(areas[static_cast<size_t>(area)].codes.data()) +
               row * base.quantized[static_cast<size_t>(area)].stride;
    }
    void run_row_op(const RowOp& op, int begin, int end);
    void run_linear_tiles(const Phase& phase, int begin, int end, int n);

    const Plan& base;
    std::unique_ptr<Line[]> scratch; // pages that no row reaches are never touched
    std::vector<int64_t> slot_offsets;
    std::vector<Area> areas;
    std::atomic<const std::string*> not_finite{nullptr};
};

} // namespace tercet
#endif
