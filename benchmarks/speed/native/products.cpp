// Times y = W x as a caller sees it: float32 in, float32 out, activation quantization and thread join included.
//
// Work is dealt out as the engine does it (native/engine/engine.cpp, run_rows and run_linears), and each product writes
// an output of its own, as the peers' graphs do.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace {

constexpr int TOKENS_A_JOB = 4;
constexpr int TILES_A_JOB = 4;

struct Scratch {
    std::vector<int8_t> codes;
    std::vector<float> scale;
    std::vector<int32_t> sum;
};

template <class Job>
void fork_join(int jobs, int threads, const Job& job) {
    const int parallel = std::min(jobs, threads);
    if (parallel <= 1) {
        for (int i = 0; i < jobs; i++) job(i);
        return;
    }
    std::atomic<int> next{0};
    tercet::ThreadPool::instance().run(parallel, [&](int) {
        for (int i = next.fetch_add(1); i < jobs; i = next.fetch_add(1)) job(i);
    });
}

bool quantize(const tercet_backend* b, const tercet_matrix& w, const float* x, int n, int64_t stride, int threads,
              Scratch& s) {
    std::atomic<int> bad{0};
    fork_join((n + TOKENS_A_JOB - 1) / TOKENS_A_JOB, threads, [&](int job) {
        const int first = job * TOKENS_A_JOB, count = std::min(TOKENS_A_JOB, n - first);
        const size_t at = (size_t)first * (size_t)w.groups;
        bad |= b->quantize(x + (int64_t)first * w.cols, w.cols, count, w.cols, w.group, w.groups, stride,
                           &s.codes[(size_t)(first * stride)], &s.scale[at], &s.sum[at]);
    });
    return bad == 0;
}

void multiply(const tercet_backend* b, const tercet_matrix& w, const tercet_activations& x, float* y, int threads) {
    const int tiles = (w.rows + TERCET_ROWS - 1) / TERCET_ROWS;
    const int quads = (tiles + TILES_A_JOB - 1) / TILES_A_JOB;
    const int jobs = threads == 1 ? 1 : std::min(quads, threads * (x.n == 1 ? 1 : 4));
    fork_join(jobs, threads, [&](int job) {
        const int begin = (int)((int64_t)quads * job / jobs) * TILES_A_JOB;
        const int end = (int)((int64_t)quads * (job + 1) / jobs) * TILES_A_JOB;
        b->linear[w.format](&w, &x, nullptr, y, w.rows, begin, std::min(end, tiles));
    });
}

} // namespace

// Seconds for the products of `count` matrices of one shape with the same x f32[n][cols], or a negative number where
// the instruction set is not to be had, a matrix is none, or x is not finite. y f32[count][n][rows]; `stride` as in
// tercet_activations.
extern "C" double bench_products(const char* isa, const tercet_matrix* w, int count, const float* x, int n,
                                 int64_t stride, float* y, int threads) {
    const tercet_backend* b = isa[0] ? tercet_backend_named(isa) : tercet_backend_default();
    if (!b || count < 1 || tercet_matrix_error(w)) return -1;
    Scratch s;
    s.codes.resize((size_t)(n * stride));
    s.scale.resize((size_t)n * (size_t)w->groups);
    s.sum.resize((size_t)n * (size_t)w->groups);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < count; i++) {
        if (!quantize(b, w[i], x, n, stride, threads, s)) return -1;
        const tercet_activations q{n, w[i].groups, stride, s.codes.data(), s.scale.data(), s.sum.data()};
        multiply(b, w[i], q, y + (int64_t)i * n * w[i].rows, threads);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

extern "C" const char* bench_default_isa() {
    const tercet_backend* b = tercet_backend_default();
    return b ? b->name : "";
}
