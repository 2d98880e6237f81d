// From logits to the next token, the same token on every machine: own exp, own random numbers, ties to the lower id.
//
// In transformers' order: repetition penalty, temperature, top-k, top-p, min-p. Each of the three filters keeps a prefix
// of the tokens sorted by (score descending, id ascending). A token's weight is exp((score - best) * f32(1/temperature))
// in float32; the draw walks the kept tokens in sorted order where top-k or top-p is on, else in the order of ids.
//
// A large vocabulary is read two or three times by vector kernels and never sorted: its tokens are looked at one by one
// only where a part of a chunk holds a score high enough to matter.
#ifndef TERCET_ENGINE_SAMPLING_H
#define TERCET_ENGINE_SAMPLING_H

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace tercet {

struct SamplingOptions {
    float temperature = 0; // 0: the token with the highest score
    int32_t top_k = 0;     // tokens kept; 0: all
    float top_p = 1;       // keeps a token while those before it hold less than this probability
    float min_p = 0;       // keeps tokens with at least this share of the best one's probability
    float repetition_penalty = 1;
    uint64_t seed = 0;
};

class Sampler {
public:
    Sampler(const SamplingOptions& options, int32_t vocab, const tercet_backend& kernels);

    void accept(int32_t id);             // counts for the repetition penalty
    int32_t sample(const float* logits); // f32[vocab], finite
    int32_t vocab() const { return static_cast<int32_t>(seen.size()); }

private:
    struct Candidate {
        float score, weight;
        int32_t id;
    };

    const float* penalized(const float* logits);
    int32_t best_of(const float* scores) const;
    int32_t draw_from_all(const float* scores, int32_t best);
    int32_t draw_from_best(const float* scores, int32_t best);
    void gather(const float* scores, size_t count);
    void weigh(float top);
    void keep_nucleus(const float* scores, float top);
    bool cut(double wanted);
    double uniform(); // [0, 1)

    SamplingOptions options;
    const tercet_backend& kernels;
    float factor; // 1/temperature
    uint64_t state;
    std::vector<uint8_t> seen;
    std::vector<int32_t> seen_ids; // with a penalty: those that are set in `seen`
    std::vector<float> scores, highest, order, sums, packed;
    std::vector<Candidate> candidates;
};

} // namespace tercet
#endif
