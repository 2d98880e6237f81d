#include "coverage.h"

#include <stdio.h>

namespace sweep {

const int GROUPS[4] = {0, 32, 64, 128};

namespace {

const char* const TAIL_NAMES[TAILS] = {"none", "rows", "columns", "both"};
const char* const TOKEN_NAMES[TOKEN_CLASSES] = {"1", "2-8", "9-31", "32+"};

std::vector<int> key(const Cell& c) { return {c.format->id, c.group, c.shift, c.tail, c.tokens}; }

} // namespace

Coverage::Coverage() {
    for (const Format& format : formats())
        for (const int group : GROUPS)
            for (int rest = 0; rest < 2 * TAILS * TOKEN_CLASSES; rest++)
                cells_.push_back({&format, group, rest / (TAILS * TOKEN_CLASSES), rest / TOKEN_CLASSES % TAILS,
                                  rest % TOKEN_CLASSES});
}

void Coverage::count(const Shape& s, int n, const char* isa) {
    const int unit = s.group ? s.group : s.format->columns;
    const int tail = (s.rows % 16 != 0) + 2 * (s.cols % unit != 0);
    const int tokens = n == 1 ? 0 : n <= 8 ? 1 : n <= 31 ? 2 : 3;
    counts_[key({s.format, s.group, s.shift, tail, tokens})][isa]++;
    total_++;
}

void Coverage::report(int least, bool table) const {
    int64_t fewest = INT64_MAX, most = 0;
    for (size_t i = 0; i < cells_.size(); i++) {
        const Cell& c = cells_[i];
        for (const tercet_backend* backend : backends()) {
            const auto cell = counts_.find(key(c));
            const auto found = cell == counts_.end() ? std::map<const char*, int64_t>::const_iterator()
                                                     : cell->second.find(backend->name);
            const int64_t cases = cell == counts_.end() || found == cell->second.end() ? 0 : found->second;
            fewest = cases < fewest ? cases : fewest;
            most = cases > most ? cases : most;
            if (table)
                printf("%-4s %-11s group %-4d shift %d tail %-8s tokens %-5s %lld\n", c.format->name, backend->name,
                       c.group, c.shift, TAIL_NAMES[c.tail], TOKEN_NAMES[c.tokens], (long long)cases);
            if (cases < least)
                fail("the cell %s %s group %d shift %d tail %s tokens %s has %lld cases of %d", c.format->name,
                     backend->name, c.group, c.shift, TAIL_NAMES[c.tail], TOKEN_NAMES[c.tokens], (long long)cases,
                     least);
        }
    }
    printf("packed products: %lld cases, %zu cells of %lld to %lld\n", (long long)total_,
           cells_.size() * backends().size(), (long long)fewest, (long long)most);
}

} // namespace sweep
