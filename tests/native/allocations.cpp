// The linker prefers these to glibc's functions, in shared libraries too; the memory itself is glibc's.
#include "allocations.h"

#include <errno.h>
#include <stdlib.h>

#include <atomic>

namespace {

std::atomic<int64_t> count{0};

} // namespace

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

extern "C" {

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t bytes) {
    count++;
    return __libc_malloc(bytes);
}

void* calloc(size_t elements, size_t bytes) {
    count++;
    return __libc_calloc(elements, bytes);
}

void* realloc(void* old, size_t bytes) {
    count++;
    return __libc_realloc(old, bytes);
}

void* aligned_alloc(size_t alignment, size_t bytes) {
    count++;
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void** result, size_t alignment, size_t bytes) {
    count++;
    void* memory = __libc_memalign(alignment, bytes);
    if (memory) *result = memory;
    return memory ? 0 : ENOMEM;
}

} // extern "C"

bool sweep::allocations_counted() { return true; }

#else

bool sweep::allocations_counted() { return false; }

#endif

int64_t sweep::allocations() { return count; }
