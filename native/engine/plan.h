// A program compiled for running: phases over numbered buffers, every shape checked, all scratch memory sized.
//
// Row operations (norms, rope, add, quantization ...) touch one token at a time, so a run of them is one phase that a
// thread does for a block of tokens while they are in its cache. Neighbouring linears with one input are one phase too:
// one quantization, one fork, the row tiles of all of them dealt out together. Attention is dealt out by token and head.
//
// After the last operation that knows positions only the tokens whose logits are wanted are kept.
#ifndef TERCET_ENGINE_PLAN_H
#define TERCET_ENGINE_PLAN_H

#include <memory>

#include "engine/program.h"

namespace tercet {

// One row for each token of a chunk, [rows][width]; buffers whose lives do not overlap share a slot.
struct Buffer {
    int width = 0;
    int slot = 0;
};

// int8 activations of one buffer for one group size; filled anew by each `quantize`.
struct QuantizedBuffer {
    int cols = 0, group = 0, groups = 0;
    int64_t stride = 0;
};

enum class RowKind { embed, rmsnorm, layernorm, clip, rotate, rope, store, activation, gated, add, quantize };

struct RowOp {
    explicit RowOp(RowKind k) : kind(k) {}

    RowKind kind;
    int a = -1, b = -1, out = -1; // buffers; quantize: out is a QuantizedBuffer; store: a, b are k, v
    const tercet_matrix* matrix = nullptr;
    const float* weight = nullptr;
    const float* bias = nullptr;
    float eps = 0, factor = 1, limit = 0;
    int dim = 0, heads = 0, head_dim = 0, layer = 0, rope = 0, function = 0;
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
    std::vector<RowOp> rows;
    std::vector<Linear> linears;
    int input = -1;    // of the linears
    int tiles = 0;     // of all linears together
    int64_t work = 0;  // weights of all linears together
    tercet_attention attention{};
    int q = -1, out = -1, layer = 0;
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
    std::vector<QuantizedBuffer> quantized;
    std::vector<LayerShape> layers;
    std::vector<RopeSpec> ropes;
    int logits = -1; // buffer written by the last phase straight into the caller's array
    int vocab = 0;

    // What the phases point into.
    std::unordered_map<std::string, tercet_matrix> matrices;
    std::vector<std::unique_ptr<std::vector<float>>> vectors;
};

// Throws EngineError where a weight is missing or a shape does not fit. `quantize` chooses int8 activations for the
// packed formats; false runs every linear on float activations.
std::unique_ptr<Plan> compile(const ProgramSpec& spec, bool quantize);

} // namespace tercet
#endif
