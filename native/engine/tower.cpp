#include "engine/tower.h"

#include <cstring>

namespace tercet {
namespace {

const int64_t MOST_SIDE = 1 << 16; // of a picture, in pixels

} // namespace

// Whole sequences of the longest length, one at least.
int64_t Tower::chunk_rows(const TowerPlan& compiled, const TowerOptions& chosen) {
    if (chosen.chunk < 1) throw EngineError("threads and chunk must be at least 1");
    const int64_t longest = chosen.context + compiled.most_more;
    return std::max<int64_t>(1, chosen.chunk / longest) * longest;
}

Tower::Tower(std::unique_ptr<TowerPlan> compiled, const TowerOptions& chosen)
    : Runner(*chosen.backend, chosen.threads, *compiled, chunk_rows(*compiled, chosen)), options(chosen),
      plan(std::move(compiled)), capacity(chunk_rows(*plan, chosen)) {
    size_t bytes = 0;
    for (const Phase& phase : plan->phases) {
        if (phase.kind != PhaseKind::attention) continue;
        const int64_t blocks = (phase.keys.of(options.context) + TERCET_KEY_BLOCK - 1) / TERCET_KEY_BLOCK;
        bytes = std::max(bytes, static_cast<size_t>(blocks) * tercet_kv_block_bytes(TERCET_KV_F32, phase.attention.head_dim));
    }
    for (int t = 0; t < options.threads; ++t) cache.emplace_back((bytes + sizeof(Line) - 1) / sizeof(Line));
}

void Tower::run_ids(const int32_t* given, int64_t n, int64_t tokens, float* result) {
    const std::lock_guard<ForkMutex> guard(busy);
    if (plan->patches >= 0) throw EngineError("the tower reads pictures, not ids");
    if (tokens < 1 || tokens > options.context)
        throw EngineError("texts of " + std::to_string(tokens) + " tokens; 1 to " + std::to_string(options.context) +
                          " are possible");
    for (int64_t i = 0; i < n * tokens; ++i)
        if (given[i] < 0 || given[i] >= plan->vocab)
            throw EngineError("token id " + std::to_string(given[i]) + " is outside the vocabulary of " +
                              std::to_string(plan->vocab));
    ids = given;
    run(n, tokens, result);
}

void Tower::run_pixels(const Pixels& given, int64_t n, float* result) {
    const std::lock_guard<ForkMutex> guard(busy);
    if (plan->patches < 0) throw EngineError("the tower reads ids, not pictures");
    const int64_t side = std::max(given.height, given.width);
    if (given.patch < 1 || given.channels > MOST_SIDE || side > MOST_SIDE || given.height < given.patch || given.width < given.patch ||
        (given.height / given.patch) * (given.width / given.patch) != options.context ||
        given.channels * given.patch * given.patch != width(plan->patches))
        throw EngineError("pictures of " + std::to_string(given.channels) + " x " + std::to_string(given.height) + " x " +
                          std::to_string(given.width) + " are not " + std::to_string(options.context) + " patches of " +
                          std::to_string(width(plan->patches)) + " values");
    pixels = given;
    run(n, options.context, result);
}

void Tower::run(int64_t n, int64_t tokens, float* result) {
    length = tokens;
    output = result;
    const int64_t most = capacity / (length + plan->most_more);
    for (int64_t done = 0; done < n; done += sequences) {
        sequences = std::min(most, n - done);
        run_chunk();
        output += rows(plan->made) * plan->dim;
        if (plan->patches < 0) ids += sequences * length;
        else pixels.data += sequences * pixels.channels * pixels.height * pixels.width;
    }
}

void Tower::run_chunk() {
    const Phase* const end = plan->phases.data() + plan->phases.size();
    for (const Phase *phase = plan->phases.data(), *next; phase != end; phase = next) {
        next = std::find_if(phase, end, [&](const Phase& other) { return other.group != phase->group; });
        if (phase->kind == PhaseKind::attention) run_attention(*phase);
        else run_group(phase, next, rows(phase->count));
    }
    check_output(rows(plan->made), plan->dim, "embeddings");
}

// ---- row operations that know their sequence ----

void Tower::run_special(const RowOp& op, int begin, int end, const Share& share) {
    const size_t bytes = static_cast<size_t>(width(op.out)) * sizeof(float);
    const int64_t more = op.kind == RowKind::prepend ? 1 : op.kind == RowKind::drop ? -1 : 0;
    const int64_t own = more ? op.from.of(length) + more : length; // rows of a sequence
    for (int64_t r = begin; r < end; ++r) {
        float* y = data(op.out, r, share);
        switch (op.kind) {
        case RowKind::embed: look_up(op, ids[r], y); break;
        case RowKind::patches: read_patch(r / own, r % own, y); break;
        case RowKind::table: backend.row(op.matrix, static_cast<int32_t>(r % op.from.of(length)), 1, y); break;
        case RowKind::prepend:
            std::memcpy(y, r % own ? data(op.a, r / own * (own - 1) + r % own - 1) : op.weight, bytes);
            break;
        case RowKind::drop: std::memcpy(y, data(op.a, r / own * (own + 1) + r % own + 1), bytes); break;
        case RowKind::constant: std::memcpy(y, op.weight, bytes); break;
        case RowKind::pick: std::memcpy(y, data(op.a, r * op.from.of(length) + picked(op, r)), bytes); break;
        default: break;
        }
    }
}

// Channel by channel and line by line.
void Tower::read_patch(int64_t sequence, int64_t index, float* to) const {
    const int64_t across = pixels.width / pixels.patch;
    const float* from = pixels.data + sequence * pixels.channels * pixels.height * pixels.width +
                        index / across * pixels.patch * pixels.width + index % across * pixels.patch;
    for (int64_t channel = 0; channel < pixels.channels; ++channel)
        for (int64_t line = 0; line < pixels.patch; ++line, to += pixels.patch)
            std::memcpy(to, from + (channel * pixels.height + line) * pixels.width,
                        static_cast<size_t>(pixels.patch) * sizeof(float));
}

int64_t Tower::picked(const RowOp& op, int64_t sequence) const {
    if (op.row == PickedRow::first) return 0;
    if (op.row == PickedRow::last) return op.from.of(length) - 1;
    const int32_t *begin = ids + sequence * length, *end = begin + length;
    if (op.token < 0) return std::max_element(begin, end) - begin;
    const int32_t* found = std::find(begin, end, op.token);
    return found == end ? 0 : found - begin;
}

// ---- attention ----

// A job is a KV head of a sequence.
void Tower::run_attention(const Phase& phase) {
    const int64_t queries = phase.count.of(length), keys = phase.keys.of(length);
    const int kv_heads = phase.attention.kv_heads, dim = phase.attention.head_dim;
    const int group = phase.attention.heads / kv_heads;
    tercet_attention shape = phase.attention;
    if (!phase.causal) shape.keys = static_cast<int32_t>(keys);
    const auto attend = [&](int job, int thread) {
        const int64_t sequence = job / kv_heads;
        const int head = job % kv_heads;
        // One head's cache, whichever it is: the kernels find it as if all heads' lay in the same place.
        const tercet_kv kv = {TERCET_KV_F32, 0, static_cast<int64_t>(tercet_kv_block_bytes(TERCET_KV_F32, dim)),
                              cache[static_cast<size_t>(thread)].data()};
        for (int64_t i = 0; i < keys; ++i) {
            const int64_t row = sequence * keys + i;
            backend.kv_store(&kv, data(phase.k, row) + head * dim, data(phase.v, row) + head * dim, 1, dim, i);
        }
        backend.attention(&shape, &kv, data(phase.q, sequence * queries), data(phase.out, sequence * queries),
                          static_cast<int32_t>(queries), 0, head * group, group);
    };
    fork_join(static_cast<int>(sequences) * kv_heads, attend);
}

} // namespace tercet
