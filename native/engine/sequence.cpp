#include "engine/sequence.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace tercet {
namespace {

int64_t whole_blocks(int64_t positions) {
    return (positions + TERCET_KEY_BLOCK - 1) / TERCET_KEY_BLOCK * TERCET_KEY_BLOCK;
}

} // namespace

size_t CacheShape::position_bytes() const {
    size_t elements = 0;
    for (const LayerShape& layer : layers)
        elements += 2 * static_cast<size_t>(layer.kv_heads) * static_cast<size_t>(layer.head_dim);
    return elements * element();
}

Sequence::Sequence(std::shared_ptr<const CacheShape> shape) : cache(std::move(shape)) {
    bytes = std::max<size_t>(cache->position_bytes() * static_cast<size_t>(cache->capacity), 1);
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        memory = nullptr;
        throw EngineError("cannot reserve " + std::to_string(bytes >> 20) + " MB for a KV cache; choose a smaller context");
    }
#ifdef MADV_NOHUGEPAGE
    madvise(memory, bytes, MADV_NOHUGEPAGE); // a huge page for each head's first key would undo "grows with use"
#endif
    char* next = static_cast<char*>(memory);
    for (const LayerShape& layer : cache->layers) {
        const int64_t head_size = cache->capacity * layer.head_dim;
        const size_t half = static_cast<size_t>(layer.kv_heads) * static_cast<size_t>(head_size) * cache->element();
        layers.push_back({cache->type, head_size, next, next + half});
        next += 2 * half;
    }
}

Sequence::~Sequence() {
    if (memory) munmap(memory, bytes);
}

size_t Sequence::kv_bytes() const { return cache->position_bytes() * static_cast<size_t>(whole_blocks(high_water)); }

void Sequence::advance(int64_t tokens) { used += tokens; }

void Sequence::will_write(int64_t positions) { high_water = std::max(high_water, used + positions); }

void Sequence::rewind(int64_t length) {
    if (length < 0 || length > used)
        throw EngineError("cannot rewind a sequence of " + std::to_string(used) + " tokens to " + std::to_string(length));
    used = length;
}

std::unique_ptr<Sequence> Sequence::fork(int64_t length) const {
    if (length < 0 || length > used)
        throw EngineError("cannot fork a sequence of " + std::to_string(used) + " tokens at " + std::to_string(length));
    auto copy = std::make_unique<Sequence>(cache);
    for (size_t i = 0; i < layers.size(); ++i) {
        const LayerShape& shape = cache->layers[i];
        const size_t head = static_cast<size_t>(layers[i].head_size) * cache->element();
        const size_t filled = static_cast<size_t>(whole_blocks(length) * shape.head_dim) * cache->element();
        for (size_t h = 0; h < static_cast<size_t>(shape.kv_heads); ++h) {
            const auto take = [&](void* to, const void* from) {
                std::memcpy(static_cast<char*>(to) + h * head, static_cast<const char*>(from) + h * head, filled);
            };
            take(copy->layers[i].keys, layers[i].keys);
            take(copy->layers[i].values, layers[i].values);
        }
    }
    copy->used = copy->high_water = length;
    return copy;
}

} // namespace tercet
