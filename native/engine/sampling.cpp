#include "engine/sampling.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace tercet {
namespace {

constexpr size_t FIRST_PIECE = 256; // lanes of chunks searched first for the nucleus of top-p

template <typename Candidate> bool before(const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
}

} // namespace

Sampler::Sampler(const SamplingOptions& chosen, int32_t vocab, const tercet_backend& backend)
    : options(chosen), kernels(backend), state(chosen.seed), seen(static_cast<size_t>(vocab)) {
    const size_t n = seen.size(), chunks = (n + TERCET_SAMPLE_CHUNK - 1) / TERCET_SAMPLE_CHUNK;
    factor = std::min(1.0f / options.temperature, std::numeric_limits<float>::max()); // of temperature 0: not used
    highest.resize(chunks * 16);
    if (options.repetition_penalty != 1.0f) {
        scores.resize(n);
        seen_ids.reserve(n);
    }
    if (options.temperature == 0) return;
    order.resize(chunks * 16);
    sums.resize(chunks);
    packed.resize(std::max<size_t>(n, TERCET_SAMPLE_CHUNK));
    candidates.reserve(n);
}

void Sampler::accept(int32_t id) {
    uint8_t& flag = seen[static_cast<size_t>(id)];
    if (!flag && options.repetition_penalty != 1.0f) seen_ids.push_back(id);
    flag = 1;
}

double Sampler::uniform() { // splitmix64
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return static_cast<double>(z >> 11) * 0x1p-53;
}

int32_t Sampler::sample(const float* logits) {
    const float* s = penalized(logits);
    kernels.maxima(s, vocab(), highest.data());
    const int32_t best = best_of(s);
    if (options.temperature == 0) return best;
    const bool sorted = (options.top_k > 0 && options.top_k < vocab()) || options.top_p < 1;
    return sorted ? draw_from_best(s, best) : draw_from_all(s, best);
}

const float* Sampler::penalized(const float* logits) {
    const float penalty = options.repetition_penalty;
    if (penalty == 1.0f) return logits;
    std::copy(logits, logits + vocab(), scores.begin());
    for (const int32_t id : seen_ids) {
        float& score = scores[static_cast<size_t>(id)];
        score = score > 0 ? score / penalty : score * penalty;
    }
    return scores.data();
}

// The lowest id with the highest score: in the first chunk that has it.
int32_t Sampler::best_of(const float* s) const {
    const auto found = std::max_element(highest.begin(), highest.end());
    const int32_t chunk = static_cast<int32_t>((found - highest.begin()) / 16);
    int32_t id = chunk * TERCET_SAMPLE_CHUNK;
    while (s[id] != *found) ++id;
    return id;
}

int32_t Sampler::draw_from_all(const float* s, int32_t best) {
    const float top = s[best];
    kernels.weights(s, vocab(), top, factor, options.min_p, nullptr, sums.data());
    double total = 0;
    for (const float sum : sums) total += static_cast<double>(sum);
    double left = uniform() * total;
    size_t chunk = 0;
    for (; chunk + 1 < sums.size() && left >= static_cast<double>(sums[chunk]); ++chunk)
        left -= static_cast<double>(sums[chunk]);
    const int32_t begin = static_cast<int32_t>(chunk) * TERCET_SAMPLE_CHUNK;
    const int32_t count = std::min<int32_t>(TERCET_SAMPLE_CHUNK, vocab() - begin);
    kernels.weights(s + begin, count, top, factor, options.min_p, packed.data(), nullptr);
    int32_t last = best;
    for (int32_t i = 0; i < count; ++i) {
        const float weight = packed[static_cast<size_t>(i)];
        if (weight == 0) continue;
        last = begin + i;
        left -= static_cast<double>(weight);
        if (left < 0) break;
    }
    return last; // the chunk's last where rounding left a sliver past it
}

int32_t Sampler::draw_from_best(const float* s, int32_t best) {
    const size_t n = seen.size(), k = static_cast<size_t>(std::max(options.top_k, 0));
    const float top = s[best];
    if (k > 0 && k < n) {
        gather(s, k);
        const auto middle = candidates.begin() + static_cast<std::ptrdiff_t>(k);
        std::partial_sort(candidates.begin(), middle, candidates.end(), before<Candidate>);
        candidates.resize(k);
        weigh(top);
        double total = 0;
        for (const Candidate& c : candidates) total += static_cast<double>(c.weight);
        if (options.top_p < 1) cut(static_cast<double>(options.top_p) * total);
    } else {
        keep_nucleus(s, top);
    }
    double total = 0;
    size_t kept = 0;
    for (; kept < candidates.size() && candidates[kept].weight >= options.min_p; ++kept)
        total += static_cast<double>(candidates[kept].weight);
    double left = uniform() * total;
    for (size_t i = 0; i < kept; ++i) {
        left -= static_cast<double>(candidates[i].weight);
        if (left < 0) return candidates[i].id;
    }
    return best; // rounding left a sliver past the last weight
}

// Candidates: every token whose score is among the `count` highest, and some more. `count` lanes of chunks have a
// highest score of at least the threshold, so at least so many tokens have it.
void Sampler::gather(const float* s, size_t count) {
    float threshold = -std::numeric_limits<float>::infinity();
    if (count < highest.size()) {
        order = highest;
        std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count - 1), order.end(), std::greater<>());
        threshold = order[count - 1];
    }
    candidates.clear();
    for (size_t part = 0; part < highest.size(); ++part) {
        if (highest[part] < threshold) continue;
        const size_t begin = part / 16 * TERCET_SAMPLE_CHUNK, end = std::min(begin + TERCET_SAMPLE_CHUNK, seen.size());
        for (size_t id = begin + part % 16; id < end; id += 16)
            if (s[id] >= threshold) candidates.push_back({s[id], 0, static_cast<int32_t>(id)});
    }
}

void Sampler::weigh(float top) {
    for (size_t i = 0; i < candidates.size(); ++i) packed[i] = candidates[i].score;
    kernels.weights(packed.data(), static_cast<int64_t>(candidates.size()), top, factor, 0, packed.data(), nullptr);
    for (size_t i = 0; i < candidates.size(); ++i) candidates[i].weight = packed[i];
}

// Sorted pieces that grow: few tokens hold most of the probability.
void Sampler::keep_nucleus(const float* s, float top) {
    kernels.weights(s, vocab(), top, factor, 0, nullptr, sums.data());
    double total = 0;
    for (const float sum : sums) total += static_cast<double>(sum);
    for (size_t piece = FIRST_PIECE;; piece *= 8) {
        gather(s, piece);
        std::sort(candidates.begin(), candidates.end(), before<Candidate>);
        weigh(top);
        if (cut(static_cast<double>(options.top_p) * total) || candidates.size() == seen.size()) return;
    }
}

// Drops the sorted candidates after the first that together weigh `wanted`. False where all of them weigh less.
bool Sampler::cut(double wanted) {
    double sum = 0;
    for (size_t kept = 0; kept < candidates.size(); ++kept) {
        if (kept > 0 && sum >= wanted) {
            candidates.resize(kept);
            return true;
        }
        sum += static_cast<double>(candidates[kept].weight);
    }
    return sum >= wanted;
}

} // namespace tercet
