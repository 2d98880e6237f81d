// What the machine itself allows: reading from DRAM, and integer and float multiply-adds on registers alone.
// Each returns its rate in units a second over all threads, or 0 where the CPU lacks the instruction.
#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

template <class F>
double seconds_of(int threads, F&& work) { // work(thread), all threads at once
    std::vector<std::thread> others;
    const auto start = Clock::now();
    for (int i = 1; i < threads; i++) others.emplace_back(work, i);
    work(0);
    for (std::thread& other : others) other.join();
    return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr size_t READ_BYTES = size_t{1} << 29;

const char* read_area() {
    static const char* area = [] {
        void* p = mmap(nullptr, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return (char*)nullptr;
        madvise(p, READ_BYTES, MADV_HUGEPAGE);
        std::memset(p, 1, READ_BYTES);
        return (char*)p;
    }();
    return area;
}

#if defined(__x86_64__)

// One pass over a part of the area in `streams` places at once, 128 bytes at a time.
template <class Load>
uint64_t read_streams(const char* p, size_t bytes, int streams, bool prefetch, Load&& load) {
    const size_t each = bytes / (size_t)streams;
    uint64_t sum = 0;
    for (size_t i = 0; i < each; i += 128)
        for (int s = 0; s < streams; s++) {
            const char* at = p + (size_t)s * each + i;
            if (prefetch) {
                _mm_prefetch(at + 1024, _MM_HINT_T0);
                _mm_prefetch(at + 1088, _MM_HINT_T0);
            }
            sum += load(at);
        }
    return sum;
}

__attribute__((target("avx2"))) uint64_t load128(const char* p) {
    const __m256i a = _mm256_xor_si256(_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32)));
    const __m256i b = _mm256_xor_si256(_mm256_loadu_si256((const __m256i*)(p + 64)), _mm256_loadu_si256((const __m256i*)(p + 96)));
    return (uint64_t)_mm256_extract_epi64(_mm256_xor_si256(a, b), 0);
}

#define TWELVE(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11)
#define DPBUSD(i) "vpdpbusd %%zmm30, %%zmm31, %%zmm" #i "\n"
#define FMA512(i) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" #i "\n"
#define FMA256(i) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #i "\n"
#define REGISTERS                                                                                                      \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13"

__attribute__((target("avx512f,avx512vnni"))) void vnni_loop(long turns) {
    asm volatile("vpxord %%zmm30, %%zmm30, %%zmm30\n vpxord %%zmm31, %%zmm31, %%zmm31" ::: "xmm30", "xmm31");
    for (long i = 0; i < turns; i++) asm volatile(TWELVE(DPBUSD) ::: REGISTERS);
}

__attribute__((target("avx512f"))) void fma512_loop(long turns) {
    asm volatile("vpxord %%zmm30, %%zmm30, %%zmm30\n vpxord %%zmm31, %%zmm31, %%zmm31" ::: "xmm30", "xmm31");
    for (long i = 0; i < turns; i++) asm volatile(TWELVE(FMA512) ::: REGISTERS);
}

__attribute__((target("avx2,fma"))) void fma256_loop(long turns) {
    asm volatile("vpxor %%xmm12, %%xmm12, %%xmm12\n vpxor %%xmm13, %%xmm13, %%xmm13" ::: "xmm12", "xmm13");
    for (long i = 0; i < turns; i++) asm volatile(TWELVE(FMA256) ::: REGISTERS);
}

// Tiles of 16 x 64 bytes: a multiply of two is 16 * 16 * 64 multiply-adds.
__attribute__((target("amx-tile,amx-int8"))) void amx_loop(long turns) {
    struct alignas(64) {
        uint8_t palette = 1, start = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    asm volatile("" ::"r"(&shape) : "memory"); // GCC 12 takes ldtilecfg for a reader of 8 bytes
    _tile_loadconfig(&shape);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long i = 0; i < turns; i++) {
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    _tile_release();
}

bool amx_granted() {
    unsigned a = 7, b = 0, c = 0, d = 0;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    const bool tiles = (d >> 24 & 1) && (d >> 25 & 1);
    return tiles && syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

#endif

double rate(int threads, long turns, double work, void (*loop)(long)) {
    return work * (double)turns * threads / seconds_of(threads, [&](int) { loop(turns); });
}

} // namespace

// Bytes a second read from DRAM, one pass of 512 MB in `streams` streams a thread.
extern "C" double limit_dram(int streams, int prefetch, int threads) {
    const char* area = read_area();
    if (!area || streams < 1 || threads < 1) return 0;
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2")) return 0;
    std::vector<uint64_t> sums((size_t)threads * 8);
    const size_t part = READ_BYTES / (size_t)threads;
    const double time = seconds_of(threads, [&](int i) {
        sums[(size_t)i * 8] = read_streams(area + (size_t)i * part, part, streams, prefetch != 0, load128);
    });
    asm volatile("" ::"r"(sums.data()) : "memory");
    return (double)READ_BYTES / time;
#else
    return 0;
#endif
}

// int8 operations (a multiply and an add are two) a second by vpdpbusd.
extern "C" double limit_vnni(int threads) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni")) return rate(threads, 2000000, 12 * 64 * 2, vnni_loop);
#endif
    return 0 * threads;
}

// The same by AMX tiles.
extern "C" double limit_amx(int threads) {
#if defined(__x86_64__)
    if (amx_granted()) return rate(threads, 200000, 4 * 16 * 16 * 64 * 2, amx_loop);
#endif
    return 0 * threads;
}

// float32 operations a second by fma.
extern "C" double limit_fma(int threads) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return rate(threads, 2000000, 12 * 16 * 2, fma512_loop);
    if (__builtin_cpu_supports("fma")) return rate(threads, 2000000, 12 * 8 * 2, fma256_loop);
#endif
    return 0 * threads;
}
