// A program may replace operator new; the linker then takes this one for the library too.
#include "allocations.h"

#include <stdlib.h>

#include <atomic>
#include <new>

namespace {

std::atomic<int64_t> count{0};

} // namespace

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

bool sweep::allocations_counted() { return false; }

#else

void* operator new(size_t bytes) {
    count++;
    if (void* memory = malloc(bytes ? bytes : 1)) return memory;
    throw std::bad_alloc();
}

void* operator new(size_t bytes, std::align_val_t alignment) {
    count++;
    void* memory = nullptr;
    if (posix_memalign(&memory, (size_t)alignment, bytes ? bytes : 1) == 0) return memory;
    throw std::bad_alloc();
}

void operator delete(void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { free(memory); }

bool sweep::allocations_counted() { return true; }

#endif

int64_t sweep::allocations() { return count; }
