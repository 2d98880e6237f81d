// One number for many results, to compare machines by.
#ifndef TERCET_SWEEP_DIGEST_H
#define TERCET_SWEEP_DIGEST_H

#include <inttypes.h>
#include <stdio.h>

#include <vector>

namespace sweep {

class Digest { // FNV-1a
  public:
    template <class T>
    void add(const std::vector<T>& values) {
        const uint8_t* bytes = (const uint8_t*)values.data();
        for (size_t i = 0; i < values.size() * sizeof(T); i++) hash_ = (hash_ ^ bytes[i]) * 0x100000001b3u;
    }
    void print(const char* area) const { printf("digest of %s: %016" PRIx64 "\n", area, hash_); }
    bool operator!=(const Digest& other) const { return hash_ != other.hash_; }

  private:
    uint64_t hash_ = 0xcbf29ce484222325u;
};

} // namespace sweep
#endif
