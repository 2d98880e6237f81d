// A model as the engine is given it: the operations of tercet.program, weights as views that the caller keeps alive.
#ifndef TERCET_ENGINE_PROGRAM_H
#define TERCET_ENGINE_PROGRAM_H

#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels.h"

namespace tercet {

// What a caller can cause: a program that does not fit its weights, a full context, values that are not finite.
struct EngineError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Kind {
    embed, rmsnorm, layernorm, linear, clip, rotate, rope, attention, activation, gated, add,
    prepend, position, constant, pick, drop, // towers'
};
enum class PickedRow { first, last, end };

// Fields as in tercet.program.Op.
struct OpSpec {
    Kind kind = Kind::add;
    std::vector<std::string> inputs;
    std::string output, weight, bias;
    float eps = 0, offset = 0, factor = 1, limit = 0;
    int dim = 0, heads = 0, kv_heads = 0, head_dim = 0, window = 0, layer = 0, rope = 0;
    int function = TERCET_SILU;
    bool causal = true;
    PickedRow row = PickedRow::first;
    int token = -1;
};

struct RopeSpec {
    std::vector<float> inv_freq;
    float factor = 1;
};

struct ProgramSpec {
    std::unordered_map<std::string, tercet_matrix> matrices; // each checked by tercet_matrix_error and against its bytes
    std::unordered_map<std::string, std::vector<float>> vectors;
    std::unordered_map<std::string, int> widths;
    std::vector<RopeSpec> ropes;
    std::vector<OpSpec> ops;
    int vocab = 0;
};

} // namespace tercet
#endif
