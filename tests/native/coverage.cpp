#include "coverage.h"

#include <stdio.h>

namespace sweep {

const int GROUPS[4] = {0, 32, 64, 128};

namespace {

const char* const TAILS_AND_TOKENS = "no tail: 1  2-8  9-31   32+ | rows: 1 ...    | columns: 1 ... | both: 1 ...";

std::vector<int> key(const Cell& c, int backend) {
    return {backend, c.format->id, c.group, c.shift, c.tail, c.tokens};
}

} // namespace

Coverage::Coverage() {
    for (const Format& format : formats())
        for (const int group : GROUPS)
            for (int shift = 0; shift < 2; shift++)
                for (int tail = 0; tail < TAILS; tail++)
                    for (int tokens = 0; format.has(group, tail & 2) && tokens < TOKEN_CLASSES; tokens++)
                        cells_.push_back({&format, group, shift, tail, tokens});
}

void Coverage::count(const Shape& s, int n, int backend) {
    const int unit = s.group ? s.group : s.format->columns;
    const int tail = (s.rows % 16 != 0) + 2 * (s.cols % unit != 0);
    const int tokens = n == 1 ? 0 : n <= 8 ? 1 : n <= 31 ? 2 : 3;
    counts_[key({s.format, s.group, s.shift, tail, tokens}, backend)]++;
    total_++;
}

void Coverage::report(int least, bool table) const {
    int64_t fewest = INT64_MAX, most = 0;
    int cells = 0;
    if (table) printf("%-38s %s\n", "", TAILS_AND_TOKENS);
    for (int b = 0; b < (int)backends().size(); b++) {
        const tercet_backend& backend = *backends()[(size_t)b];
        for (const Cell& c : cells_) {
            if (!backend.linear[c.format->id]) continue;
            const auto found = counts_.find(key(c, b));
            const int64_t cases = found == counts_.end() ? 0 : found->second;
            fewest = cases < fewest ? cases : fewest;
            most = cases > most ? cases : most;
            cells++;
            if (table && c.tail == 0 && c.tokens == 0)
                printf("\n%-10s %-4s group %-4d %-9s ", backend.name, c.format->name, c.group, c.shift ? "shift" : "no shift");
            if (table) printf("%s%6lld", c.tail && !c.tokens ? " |" : "", (long long)cases);
            if (cases < least)
                fail("%s %s group %d shift %d tail %d tokens %d: %lld cases of %d", backend.name, c.format->name, c.group,
                     c.shift, c.tail, c.tokens, (long long)cases, least);
        }
    }
    printf("%spacked products: %lld cases, %d cells of %lld to %lld\n", table ? "\n\n" : "", (long long)total_, cells,
           (long long)fewest, (long long)most);
}

} // namespace sweep
