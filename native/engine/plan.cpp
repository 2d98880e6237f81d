// Decoders: tokens of any sequences, a cache of keys and values, logits of the tokens that are asked for.
#include "engine/plan.h"

#include <algorithm>

#include "engine/compiler.h"

namespace tercet {
namespace {

class DecoderCompiler : Compiler {
public:
    DecoderCompiler(const ProgramSpec& program, bool quantize_activations, DecoderPlan& result)
        : Compiler(program, quantize_activations, result), plan(result) {}

    void run() {
        plan.ropes = spec.ropes;
        assign_buffers("logits", "");
        assign_slots("logits");
        const int selected = last_positional();
        if (selected < 0) throw EngineError("the program has no embedding");
        for (int i = 0; i < count(); ++i) {
            op = &spec.ops[static_cast<size_t>(i)];
            lower();
            if (i == selected) select(i);
        }
        finish();
    }

private:
    DecoderPlan& plan;
    std::vector<bool> layer_seen;

    int last_positional() const {
        int last = -1;
        for (int i = 0; i < count(); ++i) {
            const Kind kind = spec.ops[static_cast<size_t>(i)].kind;
            if (kind == Kind::embed || kind == Kind::rope || kind == Kind::attention) last = i;
        }
        return last;
    }

    void lower() {
        switch (op->kind) {
        case Kind::embed:
            expect(op == &spec.ops.front(), "an embedding that is not the first operation");
            embed();
            plan.width = width(out());
            break;
        case Kind::rope: rope(); break;
        case Kind::attention: attention(); break;
        default: lower_common();
        }
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
        row(r, {});
        written(r.out, {});
    }

    void attention() {
        check_attention();
        expect(op->causal, "only causal attention has a cache");
        expect(op->layer >= 0 && op->layer < count(), "layer index out of range");
        const size_t layer = static_cast<size_t>(op->layer);
        if (plan.layers.size() <= layer) {
            plan.layers.resize(layer + 1);
            layer_seen.resize(layer + 1, false);
        }
        expect(!layer_seen[layer], "layer " + std::to_string(layer) + " is used twice");
        layer_seen[layer] = true;
        plan.layers[layer] = {op->kv_heads, op->head_dim};

        RowOp store(RowKind::store);
        store.a = in(1);
        store.b = in(2);
        store.layer = op->layer;
        row(store, {});

        Phase& p = phase(PhaseKind::attention, {});
        p.attention = {op->heads, op->kv_heads, op->head_dim, op->window, op->factor, 0};
        p.q = in(0);
        p.out = out();
        p.layer = op->layer;
        written(p.out, {});
    }

    void select(int index) {
        if (plan.phases.back().kind == PhaseKind::attention) plan.phases.back().last_attention = true;
        Phase& p = phase(PhaseKind::select, {});
        for (size_t b = 0; b < plan.buffers.size(); ++b)
            if (first_write[b] <= index && last_use[b] > index) p.live.push_back(static_cast<int>(b));
        std::fill(quantized_of.begin(), quantized_of.end(), -1);
    }

    void finish() {
        op = &spec.ops.back();
        if (op->kind != Kind::linear || plan.phases.back().kind != PhaseKind::linears)
            throw EngineError("the last operation must be a linear that writes logits");
        expect_width(out(), spec.vocab);
        for (size_t layer = 0; layer < layer_seen.size(); ++layer)
            if (!layer_seen[layer]) throw EngineError("attention layer " + std::to_string(layer) + " is missing");
    }
};

} // namespace

std::unique_ptr<DecoderPlan> compile_decoder(const ProgramSpec& spec, bool quantize) {
    auto plan = std::make_unique<DecoderPlan>();
    DecoderCompiler(spec, quantize, *plan).run();
    return plan;
}

} // namespace tercet
