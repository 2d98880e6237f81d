#include "engine/compiler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tercet {
namespace {

[[noreturn]] void fail(const std::string& message) { throw EngineError(message); }

// Operations whose kernels may write over an input.
bool in_place(Kind kind) {
    return kind == Kind::rmsnorm || kind == Kind::layernorm || kind == Kind::clip || kind == Kind::rotate ||
           kind == Kind::activation || kind == Kind::gated || kind == Kind::add;
}

bool takes_ids(Kind kind, size_t input) { return kind == Kind::embed || (kind == Kind::pick && input == 1); }

} // namespace

Compiler::Compiler(const ProgramSpec& program, bool quantize_activations, Plan& result)
    : spec(program), plan(result), quantize(quantize_activations) {
    plan.matrices = spec.matrices;
    plan.vocab = spec.vocab;
    if (spec.ops.empty()) fail("the program has no operations");
}

// ---- buffers ----

int Compiler::width_of(const std::string& name) const {
    const auto found = spec.widths.find(name);
    if (found == spec.widths.end() || found->second <= 0) fail("buffer " + name + " has no width");
    return found->second;
}

int Compiler::new_buffer(int columns, int operation) {
    plan.buffers.push_back({columns, -1});
    first_write.push_back(operation);
    last_use.push_back(operation);
    counts.emplace_back();
    return static_cast<int>(plan.buffers.size()) - 1;
}

int Compiler::hidden_buffer(int columns, int operation) { return new_buffer(columns, operation); }

void Compiler::assign_buffers(const std::string& output, const std::string& given) {
    if (!given.empty()) ids[given] = new_buffer(width_of(given), -1);
    for (int i = 0; i < count(); ++i) {
        const OpSpec& o = spec.ops[static_cast<size_t>(i)];
        for (size_t k = 0; k < o.inputs.size(); ++k) {
            if (takes_ids(o.kind, k)) continue;
            const auto found = ids.find(o.inputs[k]);
            if (found == ids.end())
                fail("operation " + std::to_string(i) + " reads " + o.inputs[k] + " before it is written");
            last_use[static_cast<size_t>(found->second)] = i;
        }
        if (!ids.count(o.output)) ids[o.output] = new_buffer(width_of(o.output), i);
        last_use[static_cast<size_t>(ids[o.output])] = i;
    }
    if (spec.ops.back().output != output) fail("the last operation must write " + output);
    if (first_write[static_cast<size_t>(ids[output])] != count() - 1) fail(output + " is written before the last operation");
}

// A slot whose buffer dies where this one is first written, by an operation that may write over it; or -1.
int Compiler::shared_slot(size_t b, const std::vector<int>& busy_until) const {
    if (first_write[b] < 0) return -1;
    const OpSpec& o = spec.ops[static_cast<size_t>(first_write[b])];
    if (!in_place(o.kind)) return -1;
    for (const auto& name : o.inputs) {
        const size_t a = static_cast<size_t>(ids.at(name));
        const int slot = plan.buffers[a].slot;
        if (slot >= 0 && last_use[a] == first_write[b] && busy_until[static_cast<size_t>(slot)] == first_write[b] &&
            plan.buffers[a].width == plan.buffers[b].width)
            return slot;
    }
    return -1;
}

// Buffers in the order of their first write, each into a slot that is free by then. But for the operations above, an
// input's slot is freed only after the operation that reads it, so an output never shares it.
void Compiler::assign_slots(const std::string& output) {
    const size_t direct = static_cast<size_t>(ids.at(output));
    std::vector<size_t> order(plan.buffers.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [this](size_t a, size_t b) { return first_write[a] < first_write[b]; });
    std::vector<int> busy_until;
    for (const size_t b : order) {
        if (b == direct) continue;
        Buffer& buffer = plan.buffers[b];
        const auto distance = [&](size_t slot) { return std::abs(plan.slot_widths[slot] - buffer.width); };
        const int shared = shared_slot(b, busy_until);
        size_t best = shared >= 0 ? static_cast<size_t>(shared) : busy_until.size();
        for (size_t s = 0; s < busy_until.size() && shared < 0; ++s) {
            if (busy_until[s] >= first_write[b]) continue;
            if (best == busy_until.size() || distance(s) < distance(best)) best = s;
        }
        if (best == busy_until.size()) {
            busy_until.push_back(0);
            plan.slot_widths.push_back(0);
        }
        buffer.slot = static_cast<int>(best);
        busy_until[best] = last_use[b];
        plan.slot_widths[best] = std::max(plan.slot_widths[best], buffer.width);
    }
}

// ---- looking things up ----

int Compiler::in(size_t index) const {
    if (index >= op->inputs.size() || takes_ids(op->kind, index)) fail(where() + ": an input is missing");
    return ids.at(op->inputs[index]);
}

void Compiler::expect(bool ok, const std::string& what) const {
    if (!ok) fail(where() + ": " + what);
}

void Compiler::expect_width(int buffer, int64_t expected) const {
    expect(width(buffer) == expected,
           "buffer width " + std::to_string(width(buffer)) + " where " + std::to_string(expected) + " is needed");
}

const tercet_matrix* Compiler::matrix() const {
    const auto found = plan.matrices.find(op->weight);
    if (found == plan.matrices.end()) fail("weight " + op->weight + " is missing");
    return &found->second;
}

const float* Compiler::vector(const std::string& name, int size, float offset) {
    if (name.empty()) return nullptr;
    const auto found = spec.vectors.find(name);
    if (found == spec.vectors.end()) fail("weight " + name + " is missing");
    if (static_cast<int>(found->second.size()) != size)
        fail(name + " has " + std::to_string(found->second.size()) + " values where " + std::to_string(size) + " are needed");
    auto copy = std::make_unique<std::vector<float>>(found->second);
    for (float& value : *copy) {
        value += offset;
        if (!std::isfinite(value)) fail(name + " holds values that are not finite");
    }
    plan.vectors.push_back(std::move(copy));
    return plan.vectors.back()->data();
}

// ---- phases ----

// The last phase, if it can take more of the kind.
Phase& Compiler::phase(PhaseKind kind, RowCount rows_of_it, bool alone) {
    const bool joins = !plan.phases.empty() && kind == PhaseKind::rows && plan.phases.back().kind == kind &&
                       plan.phases.back().count == rows_of_it && !alone && !plan.phases.back().alone;
    if (!joins) {
        plan.phases.emplace_back();
        plan.phases.back().kind = kind;
        plan.phases.back().count = rows_of_it;
        plan.phases.back().alone = alone;
    }
    return plan.phases.back();
}

void Compiler::row(RowOp row_op, RowCount rows_of_it, bool alone) {
    row_op.name = where();
    phase(PhaseKind::rows, rows_of_it, alone).rows.push_back(std::move(row_op));
}

void Compiler::written(int buffer, RowCount rows_of_it) {
    rows(buffer) = rows_of_it;
    for (int& held : quantized_of)
        if (held == buffer) held = -1;
}

void Compiler::lower_common() {
    switch (op->kind) {
    case Kind::rmsnorm:
    case Kind::layernorm: norm(); break;
    case Kind::linear: linear(); break;
    case Kind::clip: clip(); break;
    case Kind::rotate: rotate(); break;
    case Kind::activation: elementwise(RowOp(RowKind::activation), 1); break;
    case Kind::gated: elementwise(RowOp(RowKind::gated), 2); break;
    case Kind::add: elementwise(RowOp(RowKind::add), 2); break;
    default: fail(where() + ": an operation of another kind of program");
    }
    written(out(), rows(in(0)));
}

void Compiler::embed() {
    RowOp r(RowKind::embed);
    r.matrix = matrix();
    expect(r.matrix->rows >= spec.vocab, "fewer rows than the vocabulary's " + std::to_string(spec.vocab));
    expect_width(out(), r.matrix->cols);
    r.factor = op->factor;
    r.out = out();
    if (op->dim) rotation(r, r.matrix->cols);
    row(r, {});
    written(r.out, {});
}

void Compiler::norm() {
    RowOp r(op->kind == Kind::rmsnorm ? RowKind::rmsnorm : RowKind::layernorm);
    r.a = in(0);
    r.out = out();
    r.dim = op->dim;
    r.eps = op->eps;
    expect_width(r.out, width(r.a));
    expect(r.dim > 0 && width(r.a) % r.dim == 0, "dim " + std::to_string(r.dim) + " does not divide the width");
    r.weight = vector(op->weight, r.dim, op->offset);
    expect(r.weight != nullptr, "a norm without a weight");
    r.bias = vector(op->bias, r.dim, 0);
    row(r, rows(r.a));
}

void Compiler::elementwise(RowOp r, size_t inputs) {
    r.a = in(0);
    r.b = inputs > 1 ? in(1) : -1;
    r.out = out();
    r.function = op->function;
    for (size_t i = 0; i < inputs; ++i) {
        expect_width(in(i), width(r.out));
        expect(rows(in(i)) == rows(r.a), "inputs with different rows");
    }
    row(r, rows(r.a));
}

void Compiler::clip() {
    expect(op->limit > 0 && std::isfinite(op->limit), "a clip's limit must be positive");
    RowOp r(RowKind::clip);
    r.limit = op->limit;
    elementwise(std::move(r), 1);
}

void Compiler::rotate() {
    RowOp r(RowKind::rotate);
    rotation(r, width(in(0)));
    elementwise(std::move(r), 1);
}

void Compiler::rotation(RowOp& r, int columns) {
    r.dim = op->dim;
    r.order = tercet_hadamard_order(r.dim);
    expect(r.order > 0 && columns % r.dim == 0,
           "a rotation of " + std::to_string(r.dim) + " columns; use a power of two that divides the width");
    if (r.order > 1) {
        r.signs.resize(static_cast<size_t>(r.order) * static_cast<size_t>(r.order));
        tercet_hadamard_signs(r.order, r.signs.data());
    }
}

void Compiler::check_attention() {
    const int heads = op->heads, kv_heads = op->kv_heads, dim = op->head_dim;
    expect(heads > 0 && kv_heads > 0 && dim > 0 && heads % kv_heads == 0, "heads do not fit the KV heads");
    expect_width(in(0), static_cast<int64_t>(heads) * dim);
    expect_width(in(1), static_cast<int64_t>(kv_heads) * dim);
    expect_width(in(2), static_cast<int64_t>(kv_heads) * dim);
    expect_width(out(), static_cast<int64_t>(heads) * dim);
    for (size_t i = 0; i < 3; ++i) expect(in(i) != out(), "attention reads and writes one buffer");
    expect(op->window >= 0, "negative window");
}

void Compiler::linear() {
    const tercet_matrix* w = matrix();
    const int input = in(0);
    expect_width(input, w->cols);
    expect_width(out(), w->rows);
    expect(out() != input, "reads and writes one buffer");
    const float* bias = vector(op->bias, w->rows, 0);
    const bool packed = w->format < TERCET_PACKED_FORMATS && quantize;
    Phase* last = plan.phases.empty() ? nullptr : &plan.phases.back();
    bool joins = last && last->kind == PhaseKind::linears && last->input == input;
    int area = -1;
    if (packed) {
        area = quantized_area(*w);
        if (quantized_of[static_cast<size_t>(area)] != input) {
            quantized_of[static_cast<size_t>(area)] = input;
            RowOp r(RowKind::quantize);
            r.a = input;
            r.out = area;
            row(r, rows(input));
            joins = false;
        }
    }
    Phase& p = joins ? plan.phases.back() : phase(PhaseKind::linears, rows(input));
    p.input = input;
    p.linears.push_back({w, bias, out(), area, (w->rows + TERCET_ROWS - 1) / TERCET_ROWS});
    p.tiles += p.linears.back().tiles;
    p.work += static_cast<int64_t>(w->rows) * w->cols;
}

int Compiler::quantized_area(const tercet_matrix& w) {
    // One scale a token whatever the format's padded width is: a group as wide as the row counts as the row.
    const int group = w.groups == 1 ? (w.cols + 63) / 64 * 64 : w.group;
    for (size_t i = 0; i < plan.quantized.size(); ++i)
        if (plan.quantized[i].cols == w.cols && plan.quantized[i].group == group) return static_cast<int>(i);
    plan.quantized.push_back({w.cols, group, w.groups, (static_cast<int64_t>(w.cols) + 63) / 64 * 64});
    quantized_of.push_back(-1);
    return static_cast<int>(plan.quantized.size()) - 1;
}

} // namespace tercet
