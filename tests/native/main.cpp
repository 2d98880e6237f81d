// Sweeps every backend this CPU has. Prints how many cases were tried; a failure is told and ends with status 1.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

namespace {

struct Part {
    const char* name;
    int64_t (*run)(const sweep::Options&);
};

const Part PARTS[] = {
    {"widths", sweep::sweep_widths},
    {"products", sweep::sweep_products},
    {"floats", sweep::sweep_floats},
    {"attention", sweep::sweep_attention},
    {"pool", sweep::sweep_pool},
    {"engine", sweep::sweep_engine},
    {"towers", sweep::sweep_towers},
    {"digest", sweep::sweep_digest},
};

[[noreturn]] void usage() {
    fprintf(stderr, "usage: tercet_sweep [--cases N] [--least N] [--seed N] [--table] [--unguarded]\n"
                    "                    [--no-fork] [--isa DEFAULT] [PART ...]\nparts:");
    for (const Part& part : PARTS) fprintf(stderr, " %s", part.name);
    fprintf(stderr, "\n");
    exit(2);
}

// The backend chosen where nobody chose one; `expected` NULL: any.
void check_default(const char* expected) {
    const tercet_backend* chosen = tercet_backend_default();
    if (!chosen) sweep::fail("%s", tercet_backend_error());
    printf("backends:");
    for (const tercet_backend* backend : sweep::backends()) printf(" %s", backend->name);
    printf("; default %s\n", chosen->name);
    if (expected && strcmp(chosen->name, expected) != 0) sweep::fail("the default is not %s", expected);
}

} // namespace

int main(int count, char** arguments) {
    sweep::Options options;
    const char* isa = nullptr;
    bool all = true, wanted[sizeof PARTS / sizeof *PARTS] = {};
    for (int i = 1; i < count; i++) {
        const char* word = arguments[i];
        if (!strcmp(word, "--table")) options.table = true;
        else if (!strcmp(word, "--unguarded")) sweep::Arena::guarded = false;
        else if (!strcmp(word, "--no-fork")) sweep::forks = false;
        else if (!strcmp(word, "--cases") && i + 1 < count) options.cases = atoll(arguments[++i]);
        else if (!strcmp(word, "--least") && i + 1 < count) options.least = atoi(arguments[++i]);
        else if (!strcmp(word, "--seed") && i + 1 < count) options.seed = strtoull(arguments[++i], nullptr, 10);
        else if (!strcmp(word, "--isa") && i + 1 < count) isa = arguments[++i];
        else {
            bool known = false;
            for (size_t p = 0; p < sizeof PARTS / sizeof *PARTS; p++)
                if (!strcmp(word, PARTS[p].name)) known = wanted[p] = true;
            if (!known) usage();
            all = false;
        }
    }
    sweep::report_crashes();
    sweep::describe("start");
    check_default(isa);
    for (size_t p = 0; p < sizeof PARTS / sizeof *PARTS; p++) {
        if (!all && !wanted[p]) continue;
        const int64_t cases = PARTS[p].run(options);
        if (cases < 1) sweep::fail("%s: no case", PARTS[p].name);
        printf("%s: %lld cases\n", PARTS[p].name, (long long)cases);
        fflush(stdout);
    }
    printf("all as expected\n");
}
