// How often the program asked for memory by operator new: the only way the library does. Not counted under sanitizers,
// which have an operator new of their own.
#ifndef TERCET_SWEEP_ALLOCATIONS_H
#define TERCET_SWEEP_ALLOCATIONS_H

#include <stdint.h>

namespace sweep {

int64_t allocations(); // of all threads; always 0 where they are not counted
bool allocations_counted();

} // namespace sweep
#endif
