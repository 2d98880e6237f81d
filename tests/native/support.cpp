#include "support.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace sweep {
namespace {

char current[512];

void on_crash(int number) {
    const char text[] = "FAILED: crash (an access outside an array?) in: ";
    (void)!write(2, text, sizeof text - 1);
    (void)!write(2, current, strlen(current));
    (void)!write(2, "\n", 1);
    _exit(128 + number);
}

} // namespace

float Random::normal() {
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += unit();
    return sum;
}

bool Arena::guarded = true;

Arena::Arena(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    char* memory = (char*)mmap(nullptr, inner + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for an arena");
    begin_ = memory + page;
    end_ = begin_ + inner;
    if (guarded && (mprotect(memory, page, PROT_NONE) || mprotect(end_, page, PROT_NONE))) fail("mprotect failed");
}

void* Arena::place_bytes(size_t bytes, size_t element, Random& random) {
    if (bytes + 64 > (size_t)(end_ - begin_)) fail("an arena is too small for %zu bytes", bytes);
    const int way = random.below(4);
    if (way == 0) return begin_;
    char* flush = end_ - bytes;
    if (way != 1) return flush;
    const size_t offset = (size_t)random.below(64) / element * element;
    return flush - (((size_t)flush - offset) & 63); // the last place before the end at this offset from a cache line
}

void describe(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(current, sizeof current, format, arguments);
    va_end(arguments);
}

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAILED: %s: ", current);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

void report_crashes() {
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
    signal(SIGILL, on_crash);
}

bool forks = true;

void in_child(const std::function<void()>& f) {
    if (!forks) return;
    const pid_t child = fork();
    if (child == 0) {
        f();
        _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) fail("a forked child ended with %d", status);
}

void expect_same(const char* isa, const char* what, const float* got, const float* want, size_t count) {
    if (count == 0 || memcmp(got, want, count * sizeof(float)) == 0) return;
    for (size_t i = 0; i < count; i++)
        if (memcmp(got + i, want + i, sizeof(float)) != 0)
            fail("%s %s[%zu of %zu] is %.9g, not %.9g", isa, what, i, count, (double)got[i], (double)want[i]);
}

const std::vector<const tercet_backend*>& backends() {
    static const std::vector<const tercet_backend*> all = [] {
        std::vector<const tercet_backend*> found;
        for (const char* const* name = tercet_backend_names(); *name; name++)
            found.push_back(tercet_backend_named(*name));
        return found;
    }();
    return all;
}

const tercet_backend* oracle() { return tercet_backend_named("scalar"); }

float from_half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    float value;
    if (exponent == 31) value = mantissa ? NAN : INFINITY;
    else if (exponent == 0) value = ldexpf((float)mantissa, -24);
    else value = ldexpf((float)(mantissa | 0x400), exponent - 25);
    return copysignf(value, bits & 0x8000 ? -1.0f : 1.0f);
}

uint16_t random_half(Random& random) {
    const uint64_t bits = random.bits();
    const uint16_t mantissa = (uint16_t)(bits & 0x3ff), kind = (uint16_t)(bits >> 20 & 15);
    if (kind == 0) return 0x3c00;    // 1
    if (kind == 1) return mantissa;  // less than the smallest normal number, or 0
    const uint16_t exponent = (uint16_t)(8 + (bits >> 30) % 10); // 2^-7 .. 2^2
    return (uint16_t)((bits >> 40 & 1) << 15 | (uint16_t)(exponent << 10) | mantissa);
}

} // namespace sweep
