// How often the program asked for memory: glibc's malloc and all that is made of it, operator new among them. Not counted
// under sanitizers, whose malloc is their own, nor by other C libraries.
#ifndef TERCET_SWEEP_ALLOCATIONS_H
#define TERCET_SWEEP_ALLOCATIONS_H

#include <stdint.h>

namespace sweep {

int64_t allocations(); // of all threads; always 0 where they are not counted
bool allocations_counted();

} // namespace sweep
#endif
