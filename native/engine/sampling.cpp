#include "engine/sampling.h"

#include <algorithm>
#include <cstring>

namespace tercet {

double exp_negative(double x) {
    if (!(x > -700.0)) return 0.0;
    const int64_t k = static_cast<int64_t>(x * 0x1.71547652b82fep+0 - 0.5); // round to nearest, x <= 0
    const double n = static_cast<double>(k);
    const double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33; // ln 2 in two parts, the first product exact
    double sum = 1.0;
    for (int i = 14; i > 0; --i) sum = sum * r / i + 1.0; // Taylor on |r| <= ln(2)/2
    const uint64_t bits = static_cast<uint64_t>(k + 1023) << 52;
    double power;
    std::memcpy(&power, &bits, sizeof power);
    return sum * power;
}

Sampler::Sampler(const SamplingOptions& chosen, int32_t vocab)
    : options(chosen), state(chosen.seed), seen(static_cast<size_t>(vocab)), scores(static_cast<size_t>(vocab)) {}

double Sampler::uniform() { // splitmix64
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return static_cast<double>(z >> 11) * 0x1p-53;
}

int32_t Sampler::sample(const float* logits) {
    size_t best = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
        float score = logits[i];
        if (seen[i] && options.repetition_penalty != 1.0f)
            score = score > 0 ? score / options.repetition_penalty : score * options.repetition_penalty;
        scores[i] = score;
        if (score > scores[best]) best = i;
    }
    if (options.temperature == 0) return static_cast<int32_t>(best);

    candidates.clear();
    const double top = static_cast<double>(scores[best]), temperature = static_cast<double>(options.temperature);
    for (size_t i = 0; i < scores.size(); ++i)
        candidates.push_back({scores[i], static_cast<int32_t>(i), 0.0});
    keep_top_k();
    for (Candidate& c : candidates) c.weight = exp_negative((static_cast<double>(c.score) - top) / temperature);
    keep_top_p();
    const double least = static_cast<double>(options.min_p);
    const auto end = std::remove_if(candidates.begin(), candidates.end(),
                                    [least](const Candidate& c) { return c.weight < least; });
    candidates.erase(end, candidates.end());

    double total = 0;
    for (const Candidate& c : candidates) total += c.weight;
    double left = uniform() * total;
    for (const Candidate& c : candidates) {
        left -= c.weight;
        if (left < 0) return c.id;
    }
    return static_cast<int32_t>(best); // rounding left a sliver past the last weight
}

namespace {

template <typename Candidate> bool before(const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
}

} // namespace

void Sampler::keep_top_k() {
    const size_t k = static_cast<size_t>(std::max(options.top_k, 0));
    if (k == 0 || k >= candidates.size()) return;
    const auto middle = candidates.begin() + static_cast<std::ptrdiff_t>(k);
    std::partial_sort(candidates.begin(), middle, candidates.end(), before<Candidate>);
    candidates.resize(k);
}

void Sampler::keep_top_p() {
    if (options.top_p >= 1) return;
    double total = 0;
    for (const Candidate& c : candidates) total += c.weight;
    const double wanted = static_cast<double>(options.top_p) * total;
    double sum = 0;
    size_t sorted = 0;
    for (size_t kept = 0; kept < candidates.size(); ++kept) { // sorted in growing pieces: few tokens hold most of it
        if (kept == sorted) {
            sorted = std::min(candidates.size(), std::max<size_t>(64, 4 * sorted));
            std::partial_sort(candidates.begin() + static_cast<std::ptrdiff_t>(kept),
                              candidates.begin() + static_cast<std::ptrdiff_t>(sorted), candidates.end(), before<Candidate>);
        }
        if (kept > 0 && sum >= wanted) {
            candidates.resize(kept);
            return;
        }
        sum += candidates[kept].weight;
    }
}

} // namespace tercet
