// Asks the CPU once which backends it can run.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"

#ifdef TERCET_AARCH64
#include <sys/auxv.h> // Linux
#endif
#if defined(TERCET_X86) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tercet {
namespace {

constexpr int MOST = 4;

#ifdef TERCET_X86
// Whether the CPU has AMX int8 and the system lets this process, and all threads it will have, use its registers.
bool tiles_allowed() {
#ifdef __linux__
    constexpr unsigned tile = 1u << 24, int8 = 1u << 25;
    constexpr int request = 0x1023, tile_data = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & tile) && (d & int8) &&
           syscall(SYS_arch_prctl, request, tile_data) == 0;
#else
    return false;
#endif
}
#endif

struct Table {
    const tercet_backend* rows[MOST]; // best first
    const char* names[MOST + 1];
    int count = 0;

    Table() {
#ifdef TERCET_X86
        __builtin_cpu_init(); // also asks whether the operating system saves the registers
        const bool avx2 =
            __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
        if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512vnni")) {
            if (tiles_allowed()) add(backend_amx());
            add(&backend_avx512vnni);
        }
        if (avx2) add(&backend_avx2);
#endif
#ifdef TERCET_AARCH64
        constexpr unsigned long dot_product = 1ul << 20; // HWCAP_ASIMDDP, which older headers do not name
        if (getauxval(AT_HWCAP) & dot_product) add(&backend_neon);
#endif
        add(&backend_scalar);
        names[count] = nullptr;
    }

    void add(const tercet_backend* row) {
        rows[count] = row;
        names[count++] = row->name;
    }
};

const Table& table() {
    static const Table t;
    return t;
}

thread_local char error[128];

} // namespace
} // namespace tercet

extern "C" {

const char* const* tercet_backend_names(void) { return tercet::table().names; }

const char* tercet_backend_error(void) { return tercet::error; }

const tercet_backend* tercet_backend_named(const char* name) {
    const tercet::Table& t = tercet::table();
    for (int i = 0; i < t.count; i++)
        if (strcmp(t.names[i], name) == 0) return t.rows[i];
    const bool known =
        !strcmp(name, "amx") || !strcmp(name, "avx512vnni") || !strcmp(name, "avx2") || !strcmp(name, "neon");
    const int size = (int)sizeof tercet::error;
    int used = snprintf(tercet::error, sizeof tercet::error, "%s '%.32s'; this machine runs",
                        known ? "this CPU or build lacks" : "unknown instruction set", name);
    for (int i = 0; i < t.count && used < size; i++)
        used += snprintf(tercet::error + used, (size_t)(size - used), "%s %s", i ? "," : "", t.names[i]);
    return nullptr;
}

const tercet_backend* tercet_backend_default(void) {
    static const char* const wanted = getenv("TERCET_ISA");
    return wanted && *wanted ? tercet_backend_named(wanted) : tercet::table().rows[0];
}

} // extern "C"
