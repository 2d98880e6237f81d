#include "engine/sequence.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace tercet {
namespace {

size_t blocks(int64_t positions) {
    return static_cast<size_t>((positions + TERCET_KEY_BLOCK - 1) / TERCET_KEY_BLOCK);
}

} // namespace

size_t CacheShape::block_bytes() const {
    size_t total = 0;
    for (const LayerShape& layer : layers)
        total += static_cast<size_t>(layer.kv_heads) * tercet_kv_block_bytes(type, layer.head_dim);
    return total;
}

Sequence::Sequence(std::shared_ptr<const CacheShape> shape) : cache(std::move(shape)) {
    const size_t block = cache->block_bytes();
    bytes = std::max<size_t>(block * blocks(cache->context), 1);
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        memory = nullptr;
        throw EngineError("cannot reserve " + std::to_string(bytes >> 20) + " MB for a KV cache; choose a smaller context");
    }
#ifdef MADV_NOHUGEPAGE
    madvise(memory, bytes, MADV_NOHUGEPAGE); // memory is to be what was written
#endif
    char* next = static_cast<char*>(memory);
    for (const LayerShape& layer : cache->layers) {
        const size_t head = tercet_kv_block_bytes(cache->type, layer.head_dim);
        layers.push_back({cache->type, static_cast<int64_t>(head), static_cast<int64_t>(block), next});
        next += static_cast<size_t>(layer.kv_heads) * head;
    }
}

Sequence::~Sequence() {
    if (memory) munmap(memory, bytes);
}

size_t Sequence::kv_bytes() const { return cache->block_bytes() * blocks(high_water); }

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
    std::memcpy(copy->memory, memory, cache->block_bytes() * blocks(length));
    copy->used = copy->high_water = length;
    return copy;
}

} // namespace tercet
