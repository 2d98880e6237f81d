#include "engine/runner.h"

#include <cmath>
#include <limits>

namespace tercet {
namespace {

const int64_t MOST_SCRATCH = int64_t{1} << 33; // bytes
const int64_t MOST_BLOCK = 128;                // rows of a group: what they hold stays in a core's cache
const int64_t LEAST_BLOCK = 24;                // fewer do not repay that every thread unpacks all weights

} // namespace

Runner::Runner(const tercet_backend& kernels, int thread_count, const Plan& plan, int64_t rows)
    : backend(kernels), threads(thread_count), base(plan) {
    if (threads < 1 || rows < 1) throw EngineError("threads and chunk must be at least 1");
    for (const Phase& phase : plan.phases)
        for (const Linear& linear : phase.linears)
            if (linear.quantized >= 0 && !backend.linear[linear.matrix->format])
                throw EngineError(backend.name + std::string(" does not read a matrix's format; use t2"));
    block_rows = std::min(rows, std::max(MOST_BLOCK, threads * LEAST_BLOCK));
    int64_t total = 0;
    const auto place = [&](int slot, int64_t count) {
        slot_offsets[static_cast<size_t>(slot)] = total;
        total += (plan.slot_widths[static_cast<size_t>(slot)] * count + 15) / 16 * 16;
        if (total > MOST_SCRATCH / static_cast<int64_t>(sizeof(float)))
            throw EngineError("a sequence of " + std::to_string(rows) + " rows needs more than 8 GB of activations");
    };
    const int slots = static_cast<int>(plan.slot_widths.size());
    slot_offsets.resize(plan.slot_widths.size());
    for (int slot = 0; slot < slots; ++slot)
        if (!local(slot)) place(slot, rows);
    const int64_t shared = total;
    for (int slot = 0; slot < slots; ++slot)
        if (local(slot)) place(slot, block_rows);
    local_floats = total - shared;
    total = shared + threads * local_floats;
    scratch.reset(new Line[static_cast<size_t>(total) * sizeof(float) / sizeof(Line)]);
    areas.resize(plan.quantized.size());
    for (size_t i = 0; i < areas.size(); ++i) {
        const QuantizedBuffer& q = plan.quantized[i];
        const size_t n = static_cast<size_t>(q.local ? threads * block_rows : rows);
        areas[i].codes.resize(n * static_cast<size_t>(q.stride) / sizeof(Line));
        areas[i].scale.resize(n * static_cast<size_t>(q.groups));
        areas[i].sum.resize(n * static_cast<size_t>(q.groups));
    }
}

Runner::Codes Runner::codes(int index, int64_t row, const Share& share) {
    const QuantizedBuffer& q = base.quantized[static_cast<size_t>(index)];
    Area& area = areas[static_cast<size_t>(index)];
    const int64_t at = q.local ? share.thread * block_rows + row - share.origin : row;
    return {reinterpret_cast<int8_t*>(area.codes.data()) + at * q.stride, area.scale.data() + at * q.groups,
            area.sum.data() + at * q.groups};
}

void Runner::check_output(int64_t n, int columns, const char* what) const {
    bool ok = true;
    for (int64_t i = 0; i < n * columns; ++i) ok &= std::fabs(output[i]) <= std::numeric_limits<float>::max();
    if (!ok) throw EngineError(std::string("the ") + what + " are not finite; the weights are damaged");
}

// ---- row operations ----

void Runner::run_rows(const Phase& phase, int64_t n) {
    const int64_t block = 16;
    fork_join(static_cast<int>((n + block - 1) / block), [&](int job, int) {
        run_row_ops(phase, job * block, std::min<int64_t>((job + 1) * block, n), {0, 0});
    });
    check_finite();
}

// All operations on a few rows, while they are near.
void Runner::run_row_ops(const Phase& phase, int64_t begin, int64_t end, const Share& share) {
    for (int64_t row = begin; row < end; row += 4)
        for (const RowOp& op : phase.rows)
            run_row_op(op, static_cast<int>(row), static_cast<int>(std::min(row + 4, end)), share);
}

void Runner::check_finite() {
    if (const std::string* name = not_finite.exchange(nullptr))
        throw EngineError(*name + ": its input is not finite; the weights are damaged, or too large for this model");
}

void Runner::run_group(const Phase* begin, const Phase* end, int64_t n) {
    if (n < threads * LEAST_BLOCK && threads > 1) {
        for (const Phase* phase = begin; phase != end; ++phase) {
            if (phase->kind == PhaseKind::rows) run_rows(*phase, n);
            else run_linears(*phase, n);
        }
        return;
    }
    const int64_t jobs = threads * ((n + threads * MOST_BLOCK - 1) / (threads * MOST_BLOCK));
    fork_join(static_cast<int>(jobs), [&](int job, int thread) {
        const int64_t first = n * job / jobs, last = n * (job + 1) / jobs;
        const Share share = {first, thread};
        for (const Phase* phase = begin; phase != end; ++phase) {
            if (phase->kind == PhaseKind::rows) run_row_ops(*phase, first, last, share);
            else run_linear_tiles(*phase, 0, phase->tiles, first, static_cast<int>(last - first), share);
        }
    });
    check_finite();
}

void Runner::look_up(const RowOp& op, int32_t id, float* to) const {
    backend.row(op.matrix, id, op.factor, to);
    const tercet_rotation rotation{op.dim, op.order, op.signs.data()};
    if (op.dim) backend.rotate(to, op.matrix->cols, &rotation, to);
}

void Runner::run_row_op(const RowOp& op, int begin, int end, const Share& share) {
    const tercet_backend& k = backend;
    const int n = end - begin;
    const int64_t size = op.out >= 0 && op.kind != RowKind::quantize ? static_cast<int64_t>(n) * width(op.out) : 0;
    switch (op.kind) {
    case RowKind::rmsnorm:
        k.rmsnorm(data(op.a, begin, share), op.weight, op.eps, static_cast<int32_t>(size / op.dim), op.dim, data(op.out, begin, share));
        break;
    case RowKind::layernorm:
        k.layernorm(data(op.a, begin, share), op.weight, op.bias, op.eps, static_cast<int32_t>(size / op.dim), op.dim,
                    data(op.out, begin, share));
        break;
    case RowKind::clip: k.clip(data(op.a, begin, share), size, op.limit, data(op.out, begin, share)); break;
    case RowKind::rotate: {
        const tercet_rotation rotation{op.dim, op.order, op.signs.data()};
        k.rotate(data(op.a, begin, share), size, &rotation, data(op.out, begin, share));
        break;
    }
    case RowKind::activation: k.activate(op.function, data(op.a, begin, share), size, data(op.out, begin, share)); break;
    case RowKind::gated: k.gated(op.function, data(op.a, begin, share), data(op.b, begin, share), size, data(op.out, begin, share)); break;
    case RowKind::add: k.add(data(op.a, begin, share), data(op.b, begin, share), size, data(op.out, begin, share)); break;
    case RowKind::quantize: {
        const QuantizedBuffer& q = base.quantized[static_cast<size_t>(op.out)];
        const Codes to = codes(op.out, begin, share);
        if (k.quantize(data(op.a, begin, share), q.cols, n, q.cols, q.group, q.groups, q.stride, to.codes, to.scale, to.sum))
            not_finite = &op.name;
        break;
    }
    default: run_special(op, begin, end, share);
    }
}

// ---- linears ----

void Runner::run_linears(const Phase& phase, int64_t rows) {
    const int n = static_cast<int>(rows);
    if (threads == 1 || phase.work * rows < FORK_WORK) {
        run_linear_tiles(phase, 0, phase.tiles, 0, n, {0, 0});
        return;
    }
    // Jobs of whole groups of 4 tiles (kernels read 4 at once); a few for each thread, so that a late one is no drama.
    const int per_thread = n == 1 ? 1 : 4;
    const int quads = (phase.tiles + 3) / 4, jobs = std::min(quads, threads * per_thread);
    fork_join(jobs, [&](int job, int) {
        const int begin = static_cast<int>(static_cast<int64_t>(quads) * job / jobs) * 4;
        const int end = static_cast<int>(static_cast<int64_t>(quads) * (job + 1) / jobs) * 4;
        run_linear_tiles(phase, begin, std::min(end, phase.tiles), 0, n, {0, 0});
    });
}

// Tiles begin .. end with n rows from `row` on.
void Runner::run_linear_tiles(const Phase& phase, int begin, int end, int64_t row, int n, const Share& share) {
    for (const Linear& linear : phase.linears) {
        const int first = std::max(begin, 0), last = std::min(end, linear.tiles);
        begin -= linear.tiles;
        end -= linear.tiles;
        if (first >= last) continue;
        const tercet_matrix& w = *linear.matrix;
        float* y = data(linear.out, row, share);
        if (linear.quantized < 0) {
            backend.linear_float(&w, data(phase.input, row, share), w.cols, n, linear.bias, y, w.rows, first, last);
            continue;
        }
        const QuantizedBuffer& q = base.quantized[static_cast<size_t>(linear.quantized)];
        const Codes from = codes(linear.quantized, row, share);
        const tercet_activations x = {n, q.groups, q.stride, from.codes, from.scale, from.sum};
        backend.linear[w.format](&w, &x, linear.bias, y, w.rows, first, last);
    }
}

} // namespace tercet
