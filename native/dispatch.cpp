// Asks the CPU once which backends it can run.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"

#ifdef TERCET_AARCH64
#include <sys/auxv.h> // Linux
#endif

namespace tercet {
namespace {

constexpr int MOST = 3;

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
            __builtin_cpu_supports("avx512vnni"))
            add(&backend_avx512vnni);
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
    const bool known = !strcmp(name, "avx2") || !strcmp(name, "avx512vnni") || !strcmp(name, "neon");
    snprintf(tercet::error, sizeof tercet::error, "%s '%.32s'; this machine runs %s%s%s%s%s",
             known ? "this CPU or build lacks" : "unknown instruction set", name, t.names[0], t.count > 1 ? ", " : "",
             t.count > 1 ? t.names[1] : "", t.count > 2 ? ", " : "", t.count > 2 ? t.names[2] : "");
    return nullptr;
}

const tercet_backend* tercet_backend_default(void) {
    static const char* const wanted = getenv("TERCET_ISA");
    return wanted && *wanted ? tercet_backend_named(wanted) : tercet::table().rows[0];
}

} // extern "C"
