// A fork-join pool, one a process. Job 0 runs on the caller, job i on worker i, so that a caller that splits work by
// index splits it alike every time. Callers from several threads take turns; a call from inside a job runs its jobs one
// after another. Workers spin for at most 30 us after a step and then sleep. After fork() the child starts a new pool:
// its parent's workers do not exist there. Workers are never joined: they end with the process.
#ifndef TERCET_THREADS_H
#define TERCET_THREADS_H

#include <pthread.h>
#include <stdint.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>

namespace tercet {

class ThreadPool {
  public:
    static constexpr int MOST = 256; // threads; more jobs than this take further rounds

    static ThreadPool& instance() {
        static std::once_flag once;
        std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { slot().store(nullptr); }); });
        ThreadPool* pool = slot().load(std::memory_order_acquire);
        if (pool) return *pool;
        ThreadPool* fresh = new ThreadPool;
        if (slot().compare_exchange_strong(pool, fresh)) return *fresh;
        delete fresh; // another thread was faster; this one has no workers yet
        return *pool;
    }

    // Runs f(0) .. f(jobs - 1), at once where the system gives the threads, and returns when all are done. f must not throw.
    template <class F>
    void run(int jobs, F&& f) {
        if (jobs <= 1 || inside()) {
            for (int i = 0; i < jobs; i++) f(i);
            return;
        }
        using Function = std::remove_reference_t<F>;
        std::lock_guard<std::mutex> turn(turn_);
        call_ = [](void* context, int job) { (*(Function*)context)(job); };
        context_ = (void*)&f;
        for (first_ = 0; first_ < jobs; first_ += MOST) step(jobs - first_ < MOST ? jobs - first_ : MOST);
    }

  private:
    ThreadPool() = default;

    static std::atomic<ThreadPool*>& slot() {
        static std::atomic<ThreadPool*> pool{nullptr};
        return pool;
    }
    static bool& inside() {
        thread_local bool flag = false;
        return flag;
    }

    void step(int jobs) {
        while (workers_ < jobs - 1 && start_worker()) {}
        const int parallel = workers_ + 1 < jobs ? workers_ + 1 : jobs;
        pending_.store(parallel - 1, std::memory_order_relaxed);
        // One word tells the step's number and its size: a worker that has no part in it touches nothing else.
        order_.store(((order_.load(std::memory_order_relaxed) >> 16) + 1) << 16 | (uint64_t)parallel);
        if (asleep_.load() > 0) {
            { std::lock_guard<std::mutex> guard(mutex_); }
            wake_.notify_all();
        }
        inside() = true;
        call_(context_, first_);
        for (int i = parallel; i < jobs; i++) call_(context_, first_ + i); // the system refused threads
        inside() = false;
        wait_for([&] { return pending_.load() == 0; }, done_, waiting_);
    }

    bool start_worker() {
        try {
            std::thread(&ThreadPool::work, this, workers_ + 1, order_.load()).detach();
        } catch (const std::system_error&) { return false; }
        workers_++;
        return true;
    }

    void work(int index, uint64_t seen) {
        inside() = true;
        for (;;) {
            wait_for([&] { return order_.load() != seen; }, wake_, asleep_);
            seen = order_.load();
            if (index >= (int)(seen & 0xffff)) continue;
            call_(context_, first_ + index);
            if (pending_.fetch_sub(1) == 1 && waiting_.load() > 0) {
                { std::lock_guard<std::mutex> guard(mutex_); }
                done_.notify_all();
            }
        }
    }

    template <class Condition>
    void wait_for(Condition&& met, std::condition_variable& condition, std::atomic<int>& sleepers) {
        const auto limit = std::chrono::steady_clock::now() + std::chrono::microseconds(30);
        do {
            for (int i = 0; i < 32; i++) {
                if (met()) return;
                pause();
            }
        } while (std::chrono::steady_clock::now() < limit);
        std::unique_lock<std::mutex> guard(mutex_);
        sleepers.fetch_add(1);
        condition.wait(guard, met);
        sleepers.fetch_sub(1);
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb" ::: "memory"); // waits about as long; yield does nothing on most cores
#endif
    }

    std::mutex turn_; // held by the caller whose jobs run
    void (*call_)(void*, int) = nullptr;
    void* context_ = nullptr;
    int first_ = 0;
    int workers_ = 0;
    alignas(64) std::atomic<uint64_t> order_{0};
    alignas(64) std::atomic<int> pending_{0};
    std::atomic<int> asleep_{0}, waiting_{0};
    std::mutex mutex_;
    std::condition_variable wake_, done_;
};

} // namespace tercet
#endif
