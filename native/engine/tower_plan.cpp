// Towers: whole sequences of one length, from ids or patches to one row each, the embedding, or to many.
#include <algorithm>

#include "engine/compiler.h"

namespace tercet {
namespace {

constexpr RowCount ONE = {0, 1};
constexpr int64_t MOST_CONTEXT = 1 << 20;

class TowerCompiler : Compiler {
public:
    TowerCompiler(const ProgramSpec& program, bool quantize_activations, int64_t positions, TowerPlan& result)
        : Compiler(program, quantize_activations, result), plan(result), context(positions) {}

    void run() {
        const OpSpec& first = spec.ops.front();
        const bool pictures = !first.inputs.empty() && first.inputs[0] == "patches";
        if (!pictures && first.kind != Kind::embed) throw EngineError("a tower must begin with patches or an embedding");
        const std::string& result = spec.ops.back().output;
        if (result != "embedding" && result != "rows") throw EngineError("the last operation must write embedding or rows");
        assign_buffers(result, pictures ? "patches" : "");
        for (int i = 0; i < count(); ++i)
            if (spec.ops[static_cast<size_t>(i)].kind == Kind::position) {
                op = &spec.ops[static_cast<size_t>(i)];
                tables.push_back(hidden_buffer(width(out()), i));
            }
        assign_slots(result);
        if (pictures) read_patches();
        for (const OpSpec& each : spec.ops) {
            op = &each;
            lower();
        }
        expect(result == "rows" || rows(out()) == ONE, "the embedding must be one row");
        plan.made = rows(out());
        plan.dim = width(out());
        find_groups();
        find_local();
    }

private:
    TowerPlan& plan;
    const int64_t context;
    std::vector<int> tables; // hidden buffers of the position operations to come
    size_t next_table = 0;

    static bool by_rows(const Phase& p) { return p.kind == PhaseKind::rows || p.kind == PhaseKind::linears; }

    void find_groups() {
        for (size_t i = 1; i < plan.phases.size(); ++i) {
            const Phase& last = plan.phases[i - 1];
            Phase& p = plan.phases[i];
            const bool joins = by_rows(last) && by_rows(p) && !last.alone && !p.alone && last.count == p.count;
            p.group = last.group + !joins;
        }
    }

    // What is always written in the group that reads it needs no more memory than a block of rows, in a thread's cache.
    void find_local() {
        std::vector<int> written_in(plan.buffers.size(), -1), quantized_in(plan.quantized.size(), -1);
        plan.local.assign(plan.slot_widths.size(), true);
        for (QuantizedBuffer& area : plan.quantized) area.local = true;
        for (const Phase& p : plan.phases) {
            const auto read = [&](int buffer) {
                if (buffer < 0 || written_in[static_cast<size_t>(buffer)] == p.group) return;
                const int slot = plan.buffers[static_cast<size_t>(buffer)].slot;
                if (slot >= 0) plan.local[static_cast<size_t>(slot)] = false;
            };
            const auto write = [&](int buffer) { written_in[static_cast<size_t>(buffer)] = p.group; };
            for (const RowOp& r : p.rows) {
                read(r.a);
                read(r.b);
                if (r.kind == RowKind::quantize) quantized_in[static_cast<size_t>(r.out)] = p.group;
                else write(r.out);
            }
            for (const Linear& linear : p.linears) {
                if (linear.quantized < 0) read(p.input);
                else if (quantized_in[static_cast<size_t>(linear.quantized)] != p.group)
                    plan.quantized[static_cast<size_t>(linear.quantized)].local = false;
                write(linear.out);
            }
            if (p.kind != PhaseKind::attention) continue;
            for (const int buffer : {p.q, p.k, p.v}) read(buffer);
            write(p.out);
        }
    }

    void read_patches() {
        op = &spec.ops.front();
        plan.patches = in(0);
        RowOp r(RowKind::patches);
        r.out = plan.patches;
        row(r, {});
    }

    void lower() {
        switch (op->kind) {
        case Kind::embed:
            expect(op == &spec.ops.front(), "an embedding that is not the first operation");
            embed();
            break;
        case Kind::position: position(); break;
        case Kind::prepend: prepend(); break;
        case Kind::constant: constant(); break;
        case Kind::pick: pick(); break;
        case Kind::drop: drop(); break;
        case Kind::attention: attention(); break;
        default: lower_common();
        }
        plan.most_more = std::max(plan.most_more, rows(out()).more);
    }

    // Rows of the table beside the sequence's, then their sum.
    void position() {
        const RowCount n = rows(in(0));
        RowOp table(RowKind::table);
        table.matrix = matrix();
        table.out = tables[next_table++];
        table.from = n;
        expect_width(in(0), table.matrix->cols);
        expect_width(out(), table.matrix->cols);
        expect(n.of(context) <= table.matrix->rows,
               std::to_string(table.matrix->rows) + " positions where " + std::to_string(n.of(context)) + " are needed");
        row(table, n);
        RowOp sum(RowKind::add);
        sum.a = in(0);
        sum.b = table.out;
        sum.out = out();
        row(sum, n);
        written(sum.out, n);
    }

    void prepend() {
        RowOp r(RowKind::prepend);
        r.a = in(0);
        r.out = out();
        r.from = rows(r.a);
        expect(r.a != r.out, "reads and writes one buffer");
        expect_width(r.a, width(r.out));
        r.weight = vector(op->weight, width(r.out), 0);
        expect(r.weight != nullptr, "nothing to put in front");
        const RowCount n = {r.from.whole, r.from.more + 1};
        row(r, n, true);
        written(r.out, n);
    }

    void constant() {
        RowOp r(RowKind::constant);
        r.out = out();
        r.weight = vector(op->weight, width(r.out), 0);
        expect(r.weight != nullptr, "a constant without a value");
        row(r, ONE, true);
        written(r.out, ONE);
    }

    void pick() {
        RowOp r(RowKind::pick);
        r.a = in(0);
        r.out = out();
        r.from = rows(r.a);
        r.row = op->row;
        r.token = op->token;
        expect(r.a != r.out, "reads and writes one buffer");
        expect_width(r.a, width(r.out));
        if (r.row == PickedRow::end)
            expect(plan.patches < 0 && r.from == RowCount{}, "the end of a text is found in a row for each id");
        row(r, ONE, true);
        written(r.out, ONE);
    }

    void drop() {
        RowOp r(RowKind::drop);
        r.a = in(0);
        r.out = out();
        r.from = rows(r.a);
        expect(r.a != r.out, "reads and writes one buffer");
        expect_width(r.a, width(r.out));
        expect(r.from.of(1) > 1, "no row would be left of the shortest sequence");
        const RowCount n = {r.from.whole, r.from.more - 1};
        row(r, n, true);
        written(r.out, n);
    }

    void attention() {
        check_attention();
        Phase& p = phase(PhaseKind::attention, rows(in(0)));
        p.attention = {op->heads, op->kv_heads, op->head_dim, op->window, op->factor, 0};
        p.q = in(0);
        p.k = in(1);
        p.v = in(2);
        p.out = out();
        p.keys = rows(p.k);
        p.causal = op->causal;
        expect(rows(p.v) == p.keys, "as many values as keys are needed");
        expect(op->causal ? p.keys == p.count : op->window == 0,
               op->causal ? "causal attention needs a key for each query" : "a window needs causal attention");
        written(p.out, p.count);
    }
};

} // namespace

std::unique_ptr<TowerPlan> compile_tower(const ProgramSpec& spec, bool quantize, int64_t context) {
    if (context < 1 || context > MOST_CONTEXT)
        throw EngineError("a context of " + std::to_string(context) + "; use 1 to " + std::to_string(MOST_CONTEXT));
    auto plan = std::make_unique<TowerPlan>();
    TowerCompiler(spec, quantize, context, *plan).run();
    return plan;
}

} // namespace tercet
