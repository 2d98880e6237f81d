// The thread pool: every job once, from several callers at once, from inside a job, and after fork.
#include <atomic>
#include <memory>
#include <thread>

#include "support.h"
#include "threads.h"

namespace sweep {
namespace {

// Counters of plain ints: a race between jobs, or with the caller after them, is the sanitizer's to find.
void run_jobs(int jobs) {
    std::vector<int> done((size_t)jobs);
    tercet::ThreadPool::instance().run(jobs, [&](int job) { done[(size_t)job]++; });
    for (int i = 0; i < jobs; i++)
        if (done[(size_t)i] != 1) fail("job %d of %d ran %d times", i, jobs, done[(size_t)i]);
}

void run_nested(int jobs) {
    std::atomic<int> done{0};
    tercet::ThreadPool::instance().run(jobs, [&](int) {
        tercet::ThreadPool::instance().run(3, [&](int) { done++; });
    });
    if (done != 3 * jobs) fail("%d of %d jobs started by %d jobs ran", done.load(), 3 * jobs, jobs);
}

void run_from(int callers, int steps) {
    std::vector<std::thread> threads;
    for (int c = 0; c < callers; c++)
        threads.emplace_back([=] {
            Random random((uint64_t)c);
            for (int i = 0; i < steps; i++) run_jobs(random.between(1, 6));
        });
    for (std::thread& thread : threads) thread.join();
}

} // namespace

int64_t sweep_pool(const Options& options) {
    const int steps = options.cases < 200000 ? 200 : 5000;
    int64_t cases = 0;
    for (int i = 0; i < steps; i++, cases++) {
        describe("pool, step %d", i);
        run_jobs(i % 9);
    }
    describe("jobs that start jobs");
    for (int jobs = 1; jobs <= 4; jobs++) run_nested(jobs);
    describe("several callers");
    run_from(4, steps);
    describe("after fork");
    for (int i = 0; i < 3; i++) {
        in_child([] { run_from(2, 20); });
        run_jobs(4);
    }
    describe("more jobs than the pool has threads");
    in_child([] { // whose pool and its threads end with it
        for (const int jobs : {255, 256, 257, 1000}) run_jobs(jobs);
    });
    return cases + 4 + 4 + 4 * steps + 3;
}

} // namespace sweep
