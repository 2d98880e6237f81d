#include "engine/plan.h"

#include <algorithm>
#include <cmath>

namespace tercet {
namespace {

[[noreturn]] void fail(const std::string& message) { throw EngineError(message); }

class Compiler {
public:
    Compiler(const ProgramSpec& program, bool quantize_activations)
        : spec(program), quantize(quantize_activations), plan(std::make_unique<Plan>()) {}

    std::unique_ptr<Plan> run() {
        plan->matrices = spec.matrices;
        plan->ropes = spec.ropes;
        plan->vocab = spec.vocab;
        if (spec.ops.empty()) fail("the program has no operations");
        assign_buffers();
        const int selected = last_positional();
        if (selected < 0) fail("the program has no embedding");
        for (int i = 0; i < count(); ++i) {
            op = &spec.ops[static_cast<size_t>(i)];
            lower();
            if (i == selected) select(i);
        }
        finish();
        return std::move(plan);
    }

private:
    const ProgramSpec& spec;
    const bool quantize;
    std::unique_ptr<Plan> plan;
    const OpSpec* op = nullptr;
    std::unordered_map<std::string, int> ids;   // buffer of a name
    std::vector<int> first_write, last_use;     // of each buffer, as indices of operations
    std::vector<int> quantized_of;              // the buffer each QuantizedBuffer now holds, or -1
    std::vector<bool> layer_seen;

    int count() const { return static_cast<int>(spec.ops.size()); }

    // ---- buffers ----

    int width_of(const std::string& name) const {
        const auto found = spec.widths.find(name);
        if (found == spec.widths.end() || found->second <= 0) fail("buffer " + name + " has no width");
        return found->second;
    }

    void assign_buffers() {
        for (int i = 0; i < count(); ++i) {
            const OpSpec& o = spec.ops[static_cast<size_t>(i)];
            for (const auto& name : o.inputs) {
                if (o.kind == Kind::embed) break; // reads the ids
                const auto found = ids.find(name);
                if (found == ids.end()) fail("operation " + std::to_string(i) + " reads " + name + " before it is written");
                last_use[static_cast<size_t>(found->second)] = i;
            }
            if (!ids.count(o.output)) {
                ids[o.output] = static_cast<int>(plan->buffers.size());
                plan->buffers.push_back({width_of(o.output), -1});
                first_write.push_back(i);
                last_use.push_back(i);
            }
            last_use[static_cast<size_t>(ids[o.output])] = i;
        }
        const auto found = ids.find("logits");
        const int logits = found == ids.end() ? -1 : found->second;
        // Buffers in the order of their first write, each into a slot that is free by then; an input's slot is freed
        // only after the operation that reads it, so an output never shares it.
        std::vector<int> busy_until;
        for (size_t b = 0; b < plan->buffers.size(); ++b) {
            Buffer& buffer = plan->buffers[b];
            if (static_cast<int>(b) == logits) continue; // lives in the caller's array
            size_t best = busy_until.size();
            for (size_t s = 0; s < busy_until.size(); ++s) {
                if (busy_until[s] >= first_write[b]) continue;
                if (best == busy_until.size() || slot_distance(s, buffer) < slot_distance(best, buffer)) best = s;
            }
            if (best == busy_until.size()) {
                busy_until.push_back(0);
                plan->slot_widths.push_back(0);
            }
            buffer.slot = static_cast<int>(best);
            busy_until[best] = last_use[b];
            plan->slot_widths[best] = std::max(plan->slot_widths[best], buffer.width);
        }
    }

    int slot_distance(size_t slot, const Buffer& buffer) const { return std::abs(plan->slot_widths[slot] - buffer.width); }

    int last_positional() const {
        int last = -1;
        for (int i = 0; i < count(); ++i) {
            const Kind kind = spec.ops[static_cast<size_t>(i)].kind;
            if (kind == Kind::embed || kind == Kind::rope || kind == Kind::attention) last = i;
        }
        return last;
    }

    // ---- looking things up ----

    std::string where() const { return op->weight.empty() ? "operation writing " + op->output : op->weight; }

    int in(size_t index) const {
        if (index >= op->inputs.size()) fail(where() + ": an input is missing");
        return ids.at(op->inputs[index]);
    }
    int out() const { return ids.at(op->output); }
    int width(int buffer) const { return plan->buffers[static_cast<size_t>(buffer)].width; }

    void expect(bool ok, const std::string& what) const {
        if (!ok) fail(where() + ": " + what);
    }
    void expect_width(int buffer, int64_t expected) const {
        expect(width(buffer) == expected,
               "buffer width " + std::to_string(width(buffer)) + " where " + std::to_string(expected) + " is needed");
    }

    const tercet_matrix* matrix() const {
        const auto found = plan->matrices.find(op->weight);
        if (found == plan->matrices.end()) fail("weight " + op->weight + " is missing");
        return &found->second;
    }

    // A copy of a norm's weight or a bias with `offset` added; "" gives NULL.
    const float* vector(const std::string& name, int size, float offset) {
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
        plan->vectors.push_back(std::move(copy));
        return plan->vectors.back()->data();
    }

    // ---- phases ----

    Phase& phase(PhaseKind kind) {
        if (plan->phases.empty() || plan->phases.back().kind != kind || kind != PhaseKind::rows) {
            plan->phases.emplace_back();
            plan->phases.back().kind = kind;
        }
        return plan->phases.back();
    }

    void row(RowOp row_op) {
        row_op.name = where();
        phase(PhaseKind::rows).rows.push_back(std::move(row_op));
    }

    void written(int buffer) {
        for (int& held : quantized_of)
            if (held == buffer) held = -1;
    }

    void lower() {
        switch (op->kind) {
        case Kind::embed: embed(); break;
        case Kind::rmsnorm:
        case Kind::layernorm: norm(); break;
        case Kind::linear: linear(); break;
        case Kind::clip: clip(); break;
        case Kind::rotate: rotate(); break;
        case Kind::rope: rope(); break;
        case Kind::attention: attention(); break;
        case Kind::activation: elementwise(RowOp(RowKind::activation), 1); break;
        case Kind::gated: elementwise(RowOp(RowKind::gated), 2); break;
        case Kind::add: elementwise(RowOp(RowKind::add), 2); break;
        }
        written(out());
    }

    void embed() {
        RowOp r(RowKind::embed);
        r.matrix = matrix();
        expect(r.matrix->rows >= spec.vocab, "fewer rows than the vocabulary's " + std::to_string(spec.vocab));
        expect_width(out(), r.matrix->cols);
        r.factor = op->factor;
        r.out = out();
        row(r);
    }

    void norm() {
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
        row(r);
    }

    void elementwise(RowOp r, size_t inputs) {
        r.a = in(0);
        r.b = inputs > 1 ? in(1) : -1;
        r.out = out();
        r.function = op->function;
        for (size_t i = 0; i < inputs; ++i) expect_width(in(i), width(r.out));
        row(r);
    }

    void clip() {
        expect(op->limit > 0 && std::isfinite(op->limit), "a clip's limit must be positive");
        RowOp r(RowKind::clip);
        r.limit = op->limit;
        elementwise(std::move(r), 1);
    }

    void rotate() {
        RowOp r(RowKind::rotate);
        r.dim = op->dim;
        expect(r.dim > 0 && (r.dim & (r.dim - 1)) == 0 && width(in(0)) % r.dim == 0,
               "a rotation of " + std::to_string(r.dim) + " columns; use a power of two that divides the width");
        elementwise(std::move(r), 1);
    }

    void rope() {
        RowOp r(RowKind::rope);
        r.a = in(0);
        r.out = out();
        r.heads = op->heads;
        r.head_dim = op->head_dim;
        r.rope = op->rope;
        expect(r.rope >= 0 && static_cast<size_t>(r.rope) < spec.ropes.size(), "rope index out of range");
        const size_t half = spec.ropes[static_cast<size_t>(r.rope)].inv_freq.size();
        expect(r.heads > 0 && r.head_dim > 0 && 2 * half <= static_cast<size_t>(r.head_dim), "rope wider than the head");
        expect_width(r.a, static_cast<int64_t>(r.heads) * r.head_dim);
        expect_width(r.out, width(r.a));
        row(r);
    }

    void attention() {
        const int heads = op->heads, kv_heads = op->kv_heads, dim = op->head_dim;
        expect(heads > 0 && kv_heads > 0 && dim > 0 && heads % kv_heads == 0, "heads do not fit the KV heads");
        expect_width(in(0), static_cast<int64_t>(heads) * dim);
        expect_width(in(1), static_cast<int64_t>(kv_heads) * dim);
        expect_width(in(2), static_cast<int64_t>(kv_heads) * dim);
        expect_width(out(), static_cast<int64_t>(heads) * dim);
        for (size_t i = 0; i < 3; ++i) expect(in(i) != out(), "attention reads and writes one buffer");
        expect(op->window >= 0, "negative window");
        expect(op->layer >= 0 && op->layer < count(), "layer index out of range");
        const size_t layer = static_cast<size_t>(op->layer);
        if (plan->layers.size() <= layer) {
            plan->layers.resize(layer + 1);
            layer_seen.resize(layer + 1, false);
        }
        expect(!layer_seen[layer], "layer " + std::to_string(layer) + " is used twice");
        layer_seen[layer] = true;
        plan->layers[layer] = {kv_heads, dim};

        RowOp store(RowKind::store);
        store.a = in(1);
        store.b = in(2);
        store.layer = op->layer;
        row(store);

        Phase& p = phase(PhaseKind::attention);
        p.attention = {heads, kv_heads, dim, op->window, op->factor};
        p.q = in(0);
        p.out = out();
        p.layer = op->layer;
    }

    void linear() {
        const tercet_matrix* w = matrix();
        const int input = in(0);
        expect_width(input, w->cols);
        expect_width(out(), w->rows);
        expect(out() != input, "reads and writes one buffer");
        const float* bias = vector(op->bias, w->rows, 0);
        const bool packed = w->format < TERCET_PACKED_FORMATS && quantize;
        Phase* last = plan->phases.empty() ? nullptr : &plan->phases.back();
        bool joins = last && last->kind == PhaseKind::linears && last->input == input;
        int area = -1;
        if (packed) {
            area = quantized_area(*w);
            if (quantized_of[static_cast<size_t>(area)] != input) {
                quantized_of[static_cast<size_t>(area)] = input;
                RowOp r(RowKind::quantize);
                r.a = input;
                r.out = area;
                row(r);
                joins = false;
            }
        }
        Phase& p = joins ? plan->phases.back() : phase(PhaseKind::linears);
        p.input = input;
        p.linears.push_back({w, bias, out(), area, (w->rows + TERCET_ROWS - 1) / TERCET_ROWS});
        p.tiles += p.linears.back().tiles;
        p.work += static_cast<int64_t>(w->rows) * w->cols;
    }

    int quantized_area(const tercet_matrix& w) {
        // One scale a token whatever the format's padded width is: a group as wide as the row counts as the row.
        const int group = w.groups == 1 ? (w.cols + 63) / 64 * 64 : w.group;
        for (size_t i = 0; i < plan->quantized.size(); ++i)
            if (plan->quantized[i].cols == w.cols && plan->quantized[i].group == group) return static_cast<int>(i);
        plan->quantized.push_back({w.cols, group, w.groups, (static_cast<int64_t>(w.cols) + 63) / 64 * 64});
        quantized_of.push_back(-1);
        return static_cast<int>(plan->quantized.size()) - 1;
    }

    void select(int index) {
        if (plan->phases.back().kind == PhaseKind::attention) plan->phases.back().last_attention = true;
        Phase& p = phase(PhaseKind::select);
        for (size_t b = 0; b < plan->buffers.size(); ++b)
            if (first_write[b] <= index && last_use[b] > index) p.live.push_back(static_cast<int>(b));
        std::fill(quantized_of.begin(), quantized_of.end(), -1);
    }

    void finish() {
        const OpSpec& last = spec.ops.back();
        const auto& p = plan->phases.back();
        if (last.kind != Kind::linear || last.output != "logits" || p.kind != PhaseKind::linears)
            fail("the last operation must be a linear that writes logits");
        plan->logits = ids.at("logits");
        op = &last;
        expect(first_write[static_cast<size_t>(plan->logits)] == count() - 1, "logits is written before the last operation");
        expect_width(plan->logits, spec.vocab);
        for (size_t layer = 0; layer < layer_seen.size(); ++layer)
            if (!layer_seen[layer]) fail("attention layer " + std::to_string(layer) + " is missing");
    }
};

} // namespace

std::unique_ptr<Plan> compile(const ProgramSpec& spec, bool quantize) { return Compiler(spec, quantize).run(); }

} // namespace tercet
