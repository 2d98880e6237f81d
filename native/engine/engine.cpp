#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/rope.h"

namespace tercet {
namespace {

const int UNIT_QUERIES = 48;       // of an attention unit: what the kernels take at once

} // namespace

Engine::Engine(std::unique_ptr<DecoderPlan> compiled, const EngineOptions& chosen)
    : Runner(*chosen.backend, chosen.threads, *compiled, chosen.chunk), options(chosen), plan(std::move(compiled)) {
    if (options.context < 1) throw EngineError("the context must be at least 1");
    for (const RopeSpec& rope : plan->ropes)
        for (const float frequency : rope.inv_freq)
            if (!(std::fabs(static_cast<double>(frequency)) * static_cast<double>(options.context) <= MAX_ANGLE))
                throw EngineError("rope frequencies too large for a context of " + std::to_string(options.context));

    auto shape = std::make_shared<CacheShape>();
    shape->type = options.kv;
    shape->context = options.context;
    shape->layers = plan->layers;
    cache = std::move(shape);

    const size_t chunk = static_cast<size_t>(options.chunk);
    for (const RopeSpec& rope : plan->ropes) {
        cos.emplace_back(chunk * rope.inv_freq.size());
        sin.emplace_back(chunk * rope.inv_freq.size());
    }
    rows.reserve(chunk);
    size_t heads = 0;
    for (const Phase& phase : plan->phases) heads = std::max(heads, static_cast<size_t>(phase.attention.heads));
    units.reserve(chunk * heads);
}

void Engine::check(const std::vector<Part>& parts) {
    named.clear();
    for (const Part& part : parts) {
        if (part.count < 1) throw EngineError("a sequence got no tokens; give at least one id");
        if (part.wanted < 0 || part.wanted > part.count) throw EngineError("more logits are wanted than tokens are given");
        if (&part.sequence->shape() != cache.get()) throw EngineError("a sequence of another engine");
        named.push_back(part.sequence);
        if (part.count > options.context - part.sequence->length())
            throw EngineError(std::to_string(part.sequence->length() + part.count) + " tokens exceed the context of " +
                              std::to_string(options.context) + "; shorten the prompt or open with a larger context");
        for (int64_t i = 0; i < part.count; ++i)
            if (part.ids[i] < 0 || (part.ids[i] >= plan->vocab && !given_row(part.ids[i])))
                throw EngineError("token id " + std::to_string(part.ids[i]) + " is outside the vocabulary of " +
                                  std::to_string(plan->vocab) + ": it names no given row");
    }
    std::sort(named.begin(), named.end());
    if (std::adjacent_find(named.begin(), named.end()) != named.end())
        throw EngineError("a sequence appears twice in one step");
}

void Engine::step(const std::vector<Part>& parts, float* logits, const std::vector<GivenRows>& given_rows) {
    const std::lock_guard<ForkMutex> guard(busy);
    given = &given_rows;
    check(parts);
    for (const Part& part : parts) part.sequence->will_write(part.count);
    rows.clear();
    output = logits;
    for (const Part& part : parts) {
        for (int64_t i = 0; i < part.count; ++i) {
            rows.push_back({part.sequence, part.sequence->length() + i, part.ids[i], i >= part.count - part.wanted});
            if (static_cast<int>(rows.size()) == options.chunk) output += run_chunk() * plan->vocab;
        }
    }
    if (!rows.empty()) run_chunk();
    for (const Part& part : parts) part.sequence->advance(part.count);
}

int64_t Engine::run_chunk() {
    prepare_rope();
    const bool wanted = std::any_of(rows.begin(), rows.end(), [](const Row& row) { return row.wanted; });
    for (const Phase& phase : plan->phases) {
        if (phase.last_attention && !wanted) break; // its keys and values are stored: all that later tokens need
        const int64_t n = static_cast<int64_t>(rows.size());
        switch (phase.kind) {
        case PhaseKind::rows: run_rows(phase, n); break;
        case PhaseKind::linears: run_linears(phase, n); break;
        case PhaseKind::attention: run_attention(phase); break;
        case PhaseKind::select: select(phase); break;
        }
        if (rows.empty()) break;
    }
    const int64_t written = wanted ? static_cast<int64_t>(rows.size()) : 0;
    rows.clear();
    check_output(written, plan->vocab, "logits");
    return written;
}

void Engine::prepare_rope() {
    for (size_t r = 0; r < plan->ropes.size(); ++r) {
        const size_t half = plan->ropes[r].inv_freq.size();
        for (size_t i = 0; i < rows.size(); ++i)
            rope_angles(plan->ropes[r], rows[i].position, &cos[r][i * half], &sin[r][i * half]);
    }
}

// ---- row operations that know ids or positions ----

const float* Engine::given_row(int32_t id) const {
    for (const GivenRows& block : *given)
        if (id >= block.first && id - block.first < block.count)
            return block.rows + static_cast<int64_t>(id - block.first) * plan->width;
    return nullptr;
}

void Engine::embed(const RowOp& op, int32_t id, float* to) const {
    if (id < plan->vocab) look_up(op, id, to);
    else std::memcpy(to, given_row(id), static_cast<size_t>(plan->width) * sizeof(float));
}

void Engine::run_special(const RowOp& op, int begin, int end, const Share&) {
    const tercet_backend& k = backend;
    const int64_t size = op.out >= 0 ? static_cast<int64_t>(end - begin) * width(op.out) : 0;
    switch (op.kind) {
    case RowKind::embed:
        for (int r = begin; r < end; ++r) embed(op, rows[static_cast<size_t>(r)].id, data(op.out, r));
        break;
    case RowKind::rope: {
        const size_t half = plan->ropes[static_cast<size_t>(op.rope)].inv_freq.size();
        if (op.a != op.out)
            std::memcpy(data(op.out, begin), data(op.a, begin), static_cast<size_t>(size) * sizeof(float));
        for (int r = begin; r < end; ++r) {
            const size_t angle = static_cast<size_t>(r) * half;
            k.rope(data(op.out, r), &cos[static_cast<size_t>(op.rope)][angle], &sin[static_cast<size_t>(op.rope)][angle],
                   op.heads, op.head_dim, static_cast<int32_t>(2 * half));
        }
        break;
    }
    case RowKind::store: {
        const LayerShape& shape = plan->layers[static_cast<size_t>(op.layer)];
        for (int r = begin; r < end; ++r) {
            const Row& row = rows[static_cast<size_t>(r)];
            k.kv_store(&row.sequence->layer(op.layer), data(op.a, r), data(op.b, r), shape.kv_heads, shape.head_dim,
                       row.position);
        }
        break;
    }
    default: break;
    }
}

// ---- attention ----

// A unit is a KV head's queries of neighbouring tokens of one sequence: they share its keys and values.
void Engine::run_attention(const Phase& phase) {
    const tercet_attention& shape = phase.attention;
    int64_t keys = 0;
    for (const Row& row : rows) keys += row.position + 1;
    const bool alone = threads == 1 || keys * shape.heads * shape.head_dim < FORK_WORK;
    deal_attention(shape, alone ? 1 : threads);
    const auto attend = [&](int job, int) {
        const Unit& unit = units[static_cast<size_t>(job)];
        const Row& row = rows[static_cast<size_t>(unit.row)];
        backend.attention(&shape, &row.sequence->layer(phase.layer), data(phase.q, unit.row),
                                   data(phase.out, unit.row), unit.tokens, row.position, unit.head, unit.heads);
    };
    const int jobs = static_cast<int>(units.size());
    if (!alone) return fork_join(jobs, attend);
    for (int job = 0; job < jobs; ++job) attend(job, 0);
}

// Whether row r is the next token of the sequence of the row before it.
bool Engine::follows(int r) const {
    const Row &row = rows[static_cast<size_t>(r)], &last = rows[static_cast<size_t>(r) - 1];
    return row.sequence == last.sequence && row.position == last.position + 1;
}

// KV head by KV head, so that its keys stay in cache. One token's queries are also cut where a thread's share ends, so
// that an odd number of KV heads leaves no thread idle.
void Engine::deal_attention(const tercet_attention& shape, int sharers) {
    const int n = static_cast<int>(rows.size()), group = shape.heads / shape.kv_heads;
    const int block = std::max(1, UNIT_QUERIES / group);
    units.clear();
    for (int head = 0; head < shape.heads;) {
        int end = head / group * group + group;
        for (int t = 1; n == 1 && t < sharers; ++t) {
            const int cut = shape.heads * t / sharers;
            if (cut > head && cut < end) end = cut;
        }
        for (int r = 0; r < n;) {
            int next = r + 1;
            while (next < n && next - r < block && follows(next)) ++next;
            units.push_back({r, next - r, head, end - head});
            r = next;
        }
        head = end;
    }
}

void Engine::select(const Phase& phase) {
    size_t kept = 0;
    for (size_t r = 0; r < rows.size(); ++r) {
        if (!rows[r].wanted) continue;
        if (kept != r) {
            rows[kept] = rows[r];
            for (const int buffer : phase.live)
                std::memcpy(data(buffer, static_cast<int>(kept)), data(buffer, static_cast<int>(r)),
                            static_cast<size_t>(width(buffer)) * sizeof(float));
        }
        ++kept;
    }
    rows.resize(kept);
}

} // namespace tercet
