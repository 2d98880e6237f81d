#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/rope.h"
#include "threads.h"

namespace tercet {
namespace {

const int64_t FORK_WORK = 1 << 16; // multiply-adds below which waking other threads costs more than it saves
const int UNIT_QUERIES = 48;       // of an attention unit: what the kernels take at once

bool all_finite(const float* values, int64_t n) {
    bool ok = true;
    for (int64_t i = 0; i < n; ++i) ok &= std::fabs(values[i]) <= std::numeric_limits<float>::max();
    return ok;
}

} // namespace

Engine::Engine(const ProgramSpec& spec, const EngineOptions& chosen)
    : options(chosen), plan(compile(spec, chosen.quantize)) {
    if (options.threads < 1 || options.chunk < 1 || options.context < 1)
        throw EngineError("threads, chunk and context must be at least 1");
    for (const RopeSpec& rope : plan->ropes)
        for (const float frequency : rope.inv_freq)
            if (!(std::fabs(static_cast<double>(frequency)) * static_cast<double>(options.context) <= MAX_ANGLE))
                throw EngineError("rope frequencies too large for a context of " + std::to_string(options.context));

    for (const Phase& phase : plan->phases)
        for (const Linear& linear : phase.linears)
            if (linear.quantized >= 0 && !options.backend->linear[linear.matrix->format])
                throw EngineError(options.backend->name + std::string(" does not read a matrix's format; use t2"));

    auto shape = std::make_shared<CacheShape>();
    shape->type = options.kv;
    shape->context = options.context;
    shape->layers = plan->layers;
    cache = std::move(shape);

    const size_t chunk = static_cast<size_t>(options.chunk);
    int64_t total = 0;
    for (const int slot : plan->slot_widths) {
        slot_offsets.push_back(total);
        total += (static_cast<int64_t>(slot) * options.chunk + 15) / 16 * 16;
    }
    scratch.resize(static_cast<size_t>(total));
    areas.resize(plan->quantized.size());
    for (size_t i = 0; i < areas.size(); ++i) {
        const size_t groups = static_cast<size_t>(plan->quantized[i].groups);
        areas[i].codes.resize(chunk * static_cast<size_t>(plan->quantized[i].stride));
        areas[i].scale.resize(chunk * groups);
        areas[i].sum.resize(chunk * groups);
    }
    for (const RopeSpec& rope : plan->ropes) {
        cos.emplace_back(chunk * rope.inv_freq.size());
        sin.emplace_back(chunk * rope.inv_freq.size());
    }
    rows.reserve(chunk);
    size_t heads = 0;
    for (const Phase& phase : plan->phases) heads = std::max(heads, static_cast<size_t>(phase.attention.heads));
    units.reserve(chunk * heads);
}

// Jobs are taken as threads come free, so that one the system holds up does not hold up the rest.
template <class Job> void Engine::fork_join(int jobs, const Job& job) {
    const int threads = std::min(jobs, options.threads);
    if (threads <= 1) {
        for (int i = 0; i < jobs; ++i) job(i);
        return;
    }
    std::atomic<int> next{0};
    ThreadPool::instance().run(threads, [&](int) {
        for (int i = next.fetch_add(1); i < jobs; i = next.fetch_add(1)) job(i);
    });
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
            if (part.ids[i] < 0 || part.ids[i] >= plan->vocab)
                throw EngineError("token id " + std::to_string(part.ids[i]) + " is outside the vocabulary of " +
                                  std::to_string(plan->vocab));
    }
    std::sort(named.begin(), named.end());
    if (std::adjacent_find(named.begin(), named.end()) != named.end())
        throw EngineError("a sequence appears twice in one step");
}

void Engine::step(const std::vector<Part>& parts, float* logits) {
    const std::lock_guard<ForkMutex> guard(busy);
    check(parts);
    for (const Part& part : parts) part.sequence->will_write(part.count);
    rows.clear();
    for (const Part& part : parts) {
        for (int64_t i = 0; i < part.count; ++i) {
            rows.push_back({part.sequence, part.sequence->length() + i, part.ids[i], i >= part.count - part.wanted});
            if (static_cast<int>(rows.size()) == options.chunk) logits += run_chunk(logits) * plan->vocab;
        }
    }
    if (!rows.empty()) run_chunk(logits);
    for (const Part& part : parts) part.sequence->advance(part.count);
}

int64_t Engine::run_chunk(float* logits) {
    prepare_rope();
    const bool wanted = std::any_of(rows.begin(), rows.end(), [](const Row& row) { return row.wanted; });
    for (const Phase& phase : plan->phases) {
        if (phase.last_attention && !wanted) break; // its keys and values are stored: all that later tokens need
        switch (phase.kind) {
        case PhaseKind::rows: run_rows(phase); break;
        case PhaseKind::linears: run_linears(phase, logits); break;
        case PhaseKind::attention: run_attention(phase); break;
        case PhaseKind::select: select(phase); break;
        }
        if (rows.empty()) break;
    }
    const int64_t written = wanted ? static_cast<int64_t>(rows.size()) : 0;
    rows.clear();
    if (!all_finite(logits, written * plan->vocab))
        throw EngineError("the logits are not finite; the weights are damaged");
    return written;
}

void Engine::prepare_rope() {
    for (size_t r = 0; r < plan->ropes.size(); ++r) {
        const size_t half = plan->ropes[r].inv_freq.size();
        for (size_t i = 0; i < rows.size(); ++i)
            rope_angles(plan->ropes[r], rows[i].position, &cos[r][i * half], &sin[r][i * half]);
    }
}

// ---- row operations ----

void Engine::run_rows(const Phase& phase) {
    const int n = static_cast<int>(rows.size()), block = 4;
    fork_join((n + block - 1) / block, [&](int job) {
        const int begin = job * block, end = std::min(begin + block, n);
        for (const RowOp& op : phase.rows) run_row_op(op, begin, end);
    });
    if (const std::string* name = not_finite.exchange(nullptr))
        throw EngineError(*name + ": its input is not finite; the weights are damaged, or too large for this model");
}

void Engine::run_row_op(const RowOp& op, int begin, int end) {
    const tercet_backend& k = *options.backend;
    const int n = end - begin;
    const int64_t size = op.out >= 0 && op.kind != RowKind::quantize ? static_cast<int64_t>(n) * width(op.out) : 0;
    switch (op.kind) {
    case RowKind::embed:
        for (int r = begin; r < end; ++r) k.row(op.matrix, rows[static_cast<size_t>(r)].id, op.factor, data(op.out, r));
        break;
    case RowKind::rmsnorm:
        k.rmsnorm(data(op.a, begin), op.weight, op.eps, static_cast<int32_t>(size / op.dim), op.dim, data(op.out, begin));
        break;
    case RowKind::layernorm:
        k.layernorm(data(op.a, begin), op.weight, op.bias, op.eps, static_cast<int32_t>(size / op.dim), op.dim,
                    data(op.out, begin));
        break;
    case RowKind::clip: k.clip(data(op.a, begin), size, op.limit, data(op.out, begin)); break;
    case RowKind::rotate: k.rotate(data(op.a, begin), size, op.dim, data(op.out, begin)); break;
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
    case RowKind::activation: k.activate(op.function, data(op.a, begin), size, data(op.out, begin)); break;
    case RowKind::gated: k.gated(op.function, data(op.a, begin), data(op.b, begin), size, data(op.out, begin)); break;
    case RowKind::add: k.add(data(op.a, begin), data(op.b, begin), size, data(op.out, begin)); break;
    case RowKind::quantize: {
        const QuantizedBuffer& q = plan->quantized[static_cast<size_t>(op.out)];
        Area& area = areas[static_cast<size_t>(op.out)];
        const size_t first = static_cast<size_t>(begin), groups = static_cast<size_t>(q.groups);
        if (k.quantize(data(op.a, begin), q.cols, n, q.cols, q.group, q.groups, q.stride,
                       &area.codes[first * static_cast<size_t>(q.stride)], &area.scale[first * groups],
                       &area.sum[first * groups]))
            not_finite = &op.name;
        break;
    }
    }
}

// ---- linears ----

void Engine::run_linears(const Phase& phase, float* logits) {
    const int64_t work = phase.work * static_cast<int64_t>(rows.size());
    if (options.threads == 1 || work < FORK_WORK) {
        run_linear_tiles(phase, 0, phase.tiles, logits);
        return;
    }
    // Jobs of whole groups of 4 tiles (kernels read 4 at once); a few for each thread, so that a late one is no drama.
    const int per_thread = rows.size() == 1 ? 1 : 4;
    const int quads = (phase.tiles + 3) / 4, jobs = std::min(quads, options.threads * per_thread);
    fork_join(jobs, [&](int job) {
        const int begin = static_cast<int>(static_cast<int64_t>(quads) * job / jobs) * 4;
        const int end = static_cast<int>(static_cast<int64_t>(quads) * (job + 1) / jobs) * 4;
        run_linear_tiles(phase, begin, std::min(end, phase.tiles), logits);
    });
}

void Engine::run_linear_tiles(const Phase& phase, int begin, int end, float* logits) {
    const int n = static_cast<int>(rows.size());
    for (const Linear& linear : phase.linears) {
        const int first = std::max(begin, 0), last = std::min(end, linear.tiles);
        begin -= linear.tiles;
        end -= linear.tiles;
        if (first >= last) continue;
        const tercet_matrix& w = *linear.matrix;
        float* y = linear.out == plan->logits ? logits : data(linear.out);
        if (linear.quantized < 0) {
            options.backend->linear_float(&w, data(phase.input), w.cols, n, linear.bias, y, w.rows, first, last);
            continue;
        }
        const QuantizedBuffer& q = plan->quantized[static_cast<size_t>(linear.quantized)];
        const Area& area = areas[static_cast<size_t>(linear.quantized)];
        const tercet_activations x = {n, q.groups, q.stride, area.codes.data(), area.scale.data(), area.sum.data()};
        options.backend->linear[w.format](&w, &x, linear.bias, y, w.rows, first, last);
    }
}

// ---- attention ----

// A unit is a KV head's queries of neighbouring tokens of one sequence: they share its keys and values.
void Engine::run_attention(const Phase& phase) {
    const tercet_attention& shape = phase.attention;
    int64_t keys = 0;
    for (const Row& row : rows) keys += row.position + 1;
    const bool alone = options.threads == 1 || keys * shape.heads * shape.head_dim < FORK_WORK;
    deal_attention(shape, alone ? 1 : options.threads);
    const auto attend = [&](int job) {
        const Unit& unit = units[static_cast<size_t>(job)];
        const Row& row = rows[static_cast<size_t>(unit.row)];
        options.backend->attention(&shape, &row.sequence->layer(phase.layer), data(phase.q, unit.row),
                                   data(phase.out, unit.row), unit.tokens, row.position, unit.head, unit.heads);
    };
    const int jobs = static_cast<int>(units.size());
    if (!alone) return fork_join(jobs, attend);
    for (int job = 0; job < jobs; ++job) attend(job);
}

// Whether row r is the next token of the sequence of the row before it.
bool Engine::follows(int r) const {
    const Row &row = rows[static_cast<size_t>(r)], &last = rows[static_cast<size_t>(r) - 1];
    return row.sequence == last.sequence && row.position == last.position + 1;
}

// KV head by KV head, so that its keys stay in cache. One token's queries are also cut where a thread's share ends, so
// that an odd number of KV heads leaves no thread idle.
void Engine::deal_attention(const tercet_attention& shape, int threads) {
    const int n = static_cast<int>(rows.size()), group = shape.heads / shape.kv_heads;
    const int block = std::max(1, UNIT_QUERIES / group);
    units.clear();
    for (int head = 0; head < shape.heads;) {
        int end = head / group * group + group;
        for (int t = 1; n == 1 && t < threads; ++t) {
            const int cut = shape.heads * t / threads;
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
