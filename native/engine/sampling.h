// From logits to the next token, the same token on every machine: own exp, own random numbers, ties to the lower id.
//
// In transformers' order: repetition penalty, temperature, top-k, top-p, min-p. Each of the three filters keeps a prefix
// of the tokens sorted by (score descending, id ascending).
#ifndef TERCET_ENGINE_SAMPLING_H
#define TERCET_ENGINE_SAMPLING_H

#include <cstddef>
#include <cstdint>
#include <vector>

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
    Sampler(const SamplingOptions& options, int32_t vocab);

    void accept(int32_t id) { seen[static_cast<size_t>(id)] = 1; } // counts for the repetition penalty
    int32_t sample(const float* logits);                           // f32[vocab], finite
    int32_t vocab() const { return static_cast<int32_t>(seen.size()); }

private:
    struct Candidate {
        float score;
        int32_t id;
        double weight; // exp((score - best) / temperature)
    };

    void keep_top_k();
    void keep_top_p();
    double uniform(); // [0, 1)

    SamplingOptions options;
    uint64_t state;
    std::vector<uint8_t> seen;
    std::vector<float> scores;
    std::vector<Candidate> candidates;
};

// e^x for x <= 0, without libm; 0 below -700.
double exp_negative(double x);

} // namespace tercet
#endif
