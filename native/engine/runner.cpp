#include "engine/runner.h"

#include <cmath>
#include <limits>

namespace tercet {
namespace {

const int64_t MOST_SCRATCH = int64_t{1} << 33; // bytes

} // namespace

Runner::Runner(const tercet_backend& kernels, int thread_count, const Plan& plan, int64_t rows)
    : backend(kernels), threads(thread_count), base(plan) {
    if (threads < 1 || rows < 1) throw EngineError("threads and chunk must be at least 1");
    for (const Phase& phase : plan.phases)
        for (const Linear& linear : phase.linears)
            if (linear.quantized >= 0 && !backend.linear[linear.matrix->format])
                throw EngineError(backend.name + std::string(" does not read a matrix's format; use t2"));
    int64_t total = 0;
    for (const int slot : plan.slot_widths) {
        slot_offsets.push_back(total);
        total += (static_cast<int64_t>(slot) * rows + 15) / 16 * 16;
        if (total > MOST_SCRATCH / static_cast<int64_t>(sizeof(float)))
            throw EngineError("a sequence of " + std::to_string(rows) + " rows needs more than 8 GB of activations");
    }
    scratch.reset(new Line[static_cast<size_t>(total) * sizeof(float) / sizeof(Line)]);
    areas.resize(plan.quantized.size());
    for (size_t i = 0; i < areas.size(); ++i) {
        const size_t groups = static_cast<size_t>(plan.quantized[i].groups), n = static_cast<size_t>(rows);
        areas[i].codes.resize(n * static_cast<size_t>(plan.quantized[i].stride) / sizeof(Line));
        areas[i].scale.resize(n * groups);
        areas[i].sum.resize(n * groups);
    }
}

void Runner::check_output(int64_t n, int columns, const char* what) const {
    bool ok = true;
    for (int64_t i = 0; i < n * columns; ++i) ok &= std::fabs(output[i]) <= std::numeric_limits<float>::max();
    if (!ok) throw EngineError(std::string("the ") + what + " are not finite; the weights are damaged");
}

// ---- row operations ----

void Runner::run_rows(const Phase& phase, int64_t rows) {
    const int n = static_cast<int>(rows), block = 4;
    fork_join((n + block - 1) / block, [&](int job, int) {
        const int begin = job * block, end = std::min(begin + block, n);
        for (const RowOp& op : phase.rows) run_row_op(op, begin, end);
    });
    if (const std::string* name = not_finite.exchange(nullptr))
        throw EngineError(*name + ": its input is not finite; the weights are damaged, or too large for this model");
}

void Runner::run_row_op(const RowOp& op, int begin, int end) {
    const tercet_backend& k = backend;
    const int n = end - begin;
    const int64_t size = op.out >= 0 && op.kind != RowKind::quantize ? static_cast<int64_t>(n) * width(op.out) : 0;
    switch (op.kind) {
    case RowKind::rmsnorm:
        k.rmsnorm(data(op.a, begin), op.weight, op.eps, static_cast<int32_t>(size / op.dim), op.dim, data(op.out, begin));
        break;
    case RowKind::layernorm:
        k.layernorm(data(op.a, begin), op.weight, op.bias, op.eps, static_cast<int32_t>(size / op.dim), op.dim,
                    data(op.out, begin));
        break;
    case RowKind::clip: k.clip(data(op.a, begin), size, op.limit, data(op.out, begin)); break;
    case RowKind::rotate: k.rotate(data(op.a, begin), size, op.dim, data(op.out, begin)); break;
    case RowKind::activation: k.activate(op.function, data(op.a, begin), size, data(op.out, begin)); break;
    case RowKind::gated: k.gated(op.function, data(op.a, begin), data(op.b, begin), size, data(op.out, begin)); break;
    case RowKind::add: k.add(data(op.a, begin), data(op.b, begin), size, data(op.out, begin)); break;
    case RowKind::quantize: {
        const QuantizedBuffer& q = base.quantized[static_cast<size_t>(op.out)];
        Area& area = areas[static_cast<size_t>(op.out)];
        const size_t first = static_cast<size_t>(begin), groups = static_cast<size_t>(q.groups);
        if (k.quantize(data(op.a, begin), q.cols, n, q.cols, q.group, q.groups, q.stride,
                       codes(op.out, begin), &area.scale[first * groups],
                       &area.sum[first * groups]))
            not_finite = &op.name;
        break;
    }
    default: run_special(op, begin, end);
    }
}

// ---- linears ----

void Runner::run_linears(const Phase& phase, int64_t rows) {
    const int n = static_cast<int>(rows);
    if (threads == 1 || phase.work * rows < FORK_WORK) {
        run_linear_tiles(phase, 0, phase.tiles, n);
        return;
    }
    // Jobs of whole groups of 4 tiles (kernels read 4 at once); a few for each thread, so that a late one is no drama.
    const int per_thread = n == 1 ? 1 : 4;
    const int quads = (phase.tiles + 3) / 4, jobs = std::min(quads, threads * per_thread);
    fork_join(jobs, [&](int job, int) {
        const int begin = static_cast<int>(static_cast<int64_t>(quads) * job / jobs) * 4;
        const int end = static_cast<int>(static_cast<int64_t>(quads) * (job + 1) / jobs) * 4;
        run_linear_tiles(phase, begin, std::min(end, phase.tiles), n);
    });
}

void Runner::run_linear_tiles(const Phase& phase, int begin, int end, int n) {
    for (const Linear& linear : phase.linears) {
        const int first = std::max(begin, 0), last = std::min(end, linear.tiles);
        begin -= linear.tiles;
        end -= linear.tiles;
        if (first >= last) continue;
        const tercet_matrix& w = *linear.matrix;
        float* y = data(linear.out);
        if (linear.quantized < 0) {
            backend.linear_float(&w, data(phase.input), w.cols, n, linear.bias, y, w.rows, first, last);
            continue;
        }
        const QuantizedBuffer& q = base.quantized[static_cast<size_t>(linear.quantized)];
        const Area& area = areas[static_cast<size_t>(linear.quantized)];
        const tercet_activations x = {n, q.groups, q.stride, codes(linear.quantized, 0), area.scale.data(), area.sum.data()};
        backend.linear[w.format](&w, &x, linear.bias, y, w.rows, first, last);
    }
}

} // namespace tercet
