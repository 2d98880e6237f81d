// One sequence's keys and values, in address space reserved for the whole context: blocks of 64 positions one after the
// other, each with all layers' and heads' parts as tercet_kv says.
//
// Pages are touched as positions are written, so memory grows with use; a rewind keeps them for what comes next.
#ifndef TERCET_ENGINE_SEQUENCE_H
#define TERCET_ENGINE_SEQUENCE_H

#include <cstddef>
#include <memory>

#include "engine/plan.h"

namespace tercet {

struct CacheShape {
    tercet_kv_type type = TERCET_KV_F16;
    int64_t context = 0; // positions a sequence may hold
    std::vector<LayerShape> layers;

    size_t block_bytes() const; // 64 positions of all layers
};

class Sequence {
public:
    explicit Sequence(std::shared_ptr<const CacheShape> shape);
    ~Sequence();
    Sequence(const Sequence&) = delete;
    Sequence& operator=(const Sequence&) = delete;

    const CacheShape& shape() const { return *cache; }
    int64_t length() const { return used; }
    size_t kv_bytes() const; // written so far, in whole key blocks
    const tercet_kv& layer(int index) const { return layers[static_cast<size_t>(index)]; }

    void advance(int64_t tokens);
    void will_write(int64_t positions); // remembers how much of the mapping is in use
    void rewind(int64_t length);        // forgets the positions from `length` on
    std::unique_ptr<Sequence> fork(int64_t length) const; // a copy of the first `length` positions

private:
    std::shared_ptr<const CacheShape> cache;
    std::vector<tercet_kv> layers;
    void* memory = nullptr;
    size_t bytes = 0;
    int64_t used = 0, high_water = 0;
};

} // namespace tercet
#endif
