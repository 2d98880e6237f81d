// A program compiled for running: phases over numbered buffers, every shape checked, all scratch memory sized.
//
// Row operations (norms, rope, add, quantization ...) touch one token at a time, so a run of them is one phase that a
// thread does for a block of tokens while they are in its cache. Neighbouring linears with one input are one phase too:
// one quantization, one fork, the row tiles of all of them dealt out together. Attention is dealt out by token and head.
//
// A decoder's step runs tokens of any sequences; after the last operation that knows positions only the tokens whose
// logits are wanted are kept. A tower runs whole sequences of one length, whose rows grow and shrink on the way.
#ifndef TERCET_ENGINE_PLAN_H
#define TERCET_ENGINE_PLAN_H

#include <memory>

#include "engine/program.h"

namespace tercet {

// One row for each token of a chunk, [rows][width]; buffers whose lives do not overlap share a slot. The one that the
// last operation writes has none: it lies in the caller's array.
struct Buffer {
    int width = 0;
    int slot = -1;
};

// int8 activations of one buffer for one group size; filled anew by each `quantize`.
struct QuantizedBuffer {
    int cols = 0, group = 0, groups = 0;
    int64_t stride = 0;
    bool local = false; // as of slots
};

// Rows of one sequence: `whole` times its length, and `more`.
struct RowCount {
    int whole = 1, more = 0;

    bool operator==(const RowCount& other) const { return whole == other.whole && more == other.more; }
    int64_t of(int64_t length) const { return whole * length + more; }
};

enum class RowKind {
    embed, rmsnorm, layernorm, clip, rotate, activation, gated, add, quantize,
    rope, store,                              // decoders'
    patches, table, prepend, constant, pick, drop, // towers'
};

struct RowOp {
    explicit RowOp(RowKind k) : kind(k) {}

    RowKind kind;
    int a = -1, b = -1, out = -1; // buffers; quantize: out is a QuantizedBuffer; store: a, b are k, v
    const tercet_matrix* matrix = nullptr;
    const float* weight = nullptr;
    const float* bias = nullptr;
    float eps = 0, factor = 1, limit = 0;
    int dim = 0, heads = 0, head_dim = 0, layer = 0, rope = 0, function = 0, order = 0;
    std::vector<float> signs; // of a rotation whose order is not 1
    RowCount from; // prepend, pick, drop: rows of `a`; table: of out
    PickedRow row = PickedRow::first;
    int token = -1;
    std::string name; // for messages: the weight that needs these activations
};

struct Linear {
    const tercet_matrix* matrix;
    const float* bias;
    int out;       // buffer
    int quantized; // QuantizedBuffer, or -1 for float activations
    int tiles;
};

enum class PhaseKind { rows, linears, attention, select };

struct Phase {
    PhaseKind kind;
    bool alone = false; // takes no further row operation
    int group = 0;      // of a tower: phases of one group touch no row but their own, and run a block of rows at a time
    RowCount count; // rows of a tower's sequence: of what is written, or the queries of attention
    std::vector<RowOp> rows;
    std::vector<Linear> linears;
    int input = -1;    // of the linears
    int tiles = 0;     // of all linears together
    int64_t work = 0;  // weights of all linears together
    tercet_attention attention{};
    int q = -1, out = -1, layer = 0;
    int k = -1, v = -1; // of a tower: there is no cache
    RowCount keys;
    bool causal = true;
    bool last_attention = false; // what follows is `select`: nobody needs the others' attention either
    std::vector<int> live;       // select: buffers that are read later
};

struct LayerShape {
    int kv_heads = 0, head_dim = 0;
};

struct Plan {
    std::vector<Phase> phases;
    std::vector<Buffer> buffers;
    std::vector<int> slot_widths;
    std::vector<bool> local; // slots that hold nothing from one group to the next; may be shorter than there are slots
    std::vector<QuantizedBuffer> quantized;
    int vocab = 0;

    // What the phases point into.
    std::unordered_map<std::string, tercet_matrix> matrices;
    std::vector<std::unique_ptr<std::vector<float>>> vectors;
};

struct DecoderPlan : Plan {
    int width = 0; // of what the embedding writes
    std::vector<LayerShape> layers;
    std::vector<RopeSpec> ropes;
};

struct TowerPlan : Plan {
    RowCount made;    // rows of the result: one embedding, or what is called rows
    int dim = 0;      // their columns
    int patches = -1; // the buffer an image tower reads, or -1
    int most_more = 0; // rows that any buffer has beyond the length
};

// Throw EngineError where a weight is missing or a shape does not fit. `quantize` chooses int8 activations for the
// packed formats; false runs every linear on float activations.
std::unique_ptr<DecoderPlan> compile_decoder(const ProgramSpec& spec, bool quantize);
// `context`: rows of positions needed, or patches of a picture.
std::unique_ptr<TowerPlan> compile_tower(const ProgramSpec& spec, bool quantize, int64_t context);

} // namespace tercet
#endif
