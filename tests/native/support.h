// What every part of the sweep needs: random numbers, arrays next to forbidden pages, and how a failure is told.
#ifndef TERCET_SWEEP_SUPPORT_H
#define TERCET_SWEEP_SUPPORT_H

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <random>
#include <vector>

#include "kernels.h"

namespace sweep {

class Random {
  public:
    explicit Random(uint64_t seed) : engine_(seed) {}
    uint64_t bits() { return engine_(); }
    int below(int n) { return (int)((engine_() >> 33) % (uint64_t)n); }
    int between(int low, int high) { return low + below(high - low + 1); }
    bool chance(int percent) { return below(100) < percent; }
    float unit() { return (float)(engine_() >> 40) * 0x1p-23f - 1.0f; } // -1 .. 1
    float normal();

  private:
    std::mt19937_64 engine_;
};

// Memory between two pages that no one may touch (unless `guarded` is false: QEMU reads a whole vector where a masked
// load should not). An array placed in it ends at the one, begins at the other, or lies
// at any offset from a cache line; a read or write outside then ends the program, with the case's description.
class Arena {
  public:
    explicit Arena(size_t bytes);
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    static bool guarded;

    template <class T>
    T* place(size_t count, Random& random) {
        return (T*)place_bytes(count * sizeof(T), sizeof(T), random);
    }

  private:
    void* place_bytes(size_t bytes, size_t element, Random& random);
    char* begin_;
    char* end_;
};

// Describes what runs now, for failures and crashes.
void describe(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Prints why, after the description, and ends the program with status 1.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void report_crashes();
// Runs f in a child process and fails where that does. Nothing where `forks` is false: QEMU 7.2 aborts when a child
// starts a thread.
void in_child(const std::function<void()>& f);
extern bool forks;

// Fails unless the arrays hold the same bits.
void expect_same(const char* isa, const char* what, const float* got, const float* want, size_t count);

// The backends to be held against each other, scalar among them.
const std::vector<const tercet_backend*>& backends();
const tercet_backend* oracle();

float from_half(uint16_t bits); // by its definition, not the kernels' way
uint16_t random_half(Random& random);

struct Options {
    int64_t cases = 20000; // at least so many packed products of the table
    int least = 1;         // in each of its cells
    uint64_t seed = 1;
    bool table = false;
};

// Each returns how many cases it ran.
int64_t sweep_widths(const Options& options);
int64_t sweep_products(const Options& options);
int64_t sweep_digest(const Options& options);
int64_t sweep_floats(const Options& options);
int64_t sweep_attention(const Options& options);
int64_t sweep_pool(const Options& options);
int64_t sweep_engine(const Options& options);
int64_t sweep_towers(const Options& options);

} // namespace sweep
#endif
