// Base-27 ternary weights with one token, by tables of products. A field of 5 bits is an index of vpermw, which looks
// up 32 words of 16 bits at once: so each field of a tile has a table of what its 32 codes give with the three
// activations, made once for all rows. A word holds one row of one row tile: two row tiles go together, the first in the
// low words. Nothing is unpacked and nothing multiplied: a shift, a look-up, an addition for three columns of 32 rows.
#include "t19.h"

#include "gemv.h"

namespace tercet::avx512vnni {
namespace {

constexpr int CHUNK = 189;     // column tiles whose tables are kept at a time: 27 groups of 128 columns
constexpr int BLOCK = 64;      // row tiles that meet them before the next chunk's are made
constexpr int FLUSH = 6;       // tiles whose sums fit 16 bits: 6 * (6*762 + 254) = 28956
constexpr int AHEAD = 32;      // column tiles whose codes are prefetched, in the order of reading
constexpr int PRODUCTS = 7;    // tables of a tile: its fields', and that of its last column

struct Tables {
    alignas(64) int16_t of[CHUNK][PRODUCTS][32];
};

// Sums of the rows' products, kept from chunk to chunk: integers within a group, floats over groups.
struct Sums {
    alignas(64) int32_t products[BLOCK][TERCET_ROWS];
    alignas(64) float acc[BLOCK][TERCET_ROWS];
};

// The digits of codes as dwords, in the order in which vpackssdw makes words 0 .. 31 of two registers.
struct Digits {
    alignas(64) uint8_t field[2][TERCET_ROWS][4], last[2][TERCET_ROWS][4];
};

constexpr Digits make_digits() {
    Digits digits{};
    for (int code = 0; code < 32; code++) {
        const int half = code / 4 % 2, lane = code / 8 * 4 + code % 4;
        for (int i = 0, power = 1; i < 3; i++, power *= 3)
            digits.field[half][lane][i] = (uint8_t)(code > 26 ? 1 : code / power % 3);
        digits.last[half][lane][0] = (uint8_t)(code < 3 ? code : 1); // the index has two bits
    }
    return digits;
}

constexpr Digits DIGITS = make_digits();

static inline void store_products(int16_t* table, const uint8_t (&digits)[2][TERCET_ROWS][4], const int8_t* x) {
    const __m512i quad = broadcast4(x), zero = _mm512_setzero_si512();
    const __m512i low = _mm512_dpbusd_epi32(zero, _mm512_load_si512(digits[0]), quad);
    const __m512i high = _mm512_dpbusd_epi32(zero, _mm512_load_si512(digits[1]), quad);
    _mm512_store_si512(table, _mm512_packs_epi32(low, high));
}

// Tables of the tile whose columns' activations are x[0 .. columns-1]; there are none past them.
void make_tables(int16_t (&tables)[PRODUCTS][32], const int8_t* x, int32_t columns) {
    int8_t own[32] = {};
    if (columns < 22) { // the last quad's end
        memcpy(own, x, (size_t)(columns < T19::columns ? columns : T19::columns));
        x = own;
    }
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) store_products(tables[i], DIGITS.field, x + 3 * i);
    store_products(tables[6], DIGITS.last, x + 18);
}

// Bits 0..15, 8..23 and 16..31 of a pair's tiles. The second's are read from before it and the first's from behind it:
// that is still in the pair. With one row tile, R = 1, the high words are of no use.
template <int R>
static inline void load_pair(__m512i (&bits)[3], const uint8_t* first, int64_t stride) {
    if constexpr (R == 1) {
        bits[0] = _mm512_loadu_si512(first);
        bits[1] = _mm512_srli_epi32(bits[0], 8);
        bits[2] = _mm512_srli_epi32(bits[0], 16);
    } else {
        const uint8_t* second = first + stride - 2;
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++)
            bits[i] = _mm512_mask_loadu_epi16(_mm512_loadu_si512(first + i), 0xaaaaaaaa, second + i);
    }
}

// words[p] += the products of one column tile of R row tiles `stride` bytes apart
template <int R>
static inline void add_tile(__m512i (&words)[(R + 1) / 2], const uint8_t* codes, int64_t stride,
                            const int16_t (&tables)[PRODUCTS][32]) {
    __m512i table[PRODUCTS];
#pragma GCC unroll 7
    for (int i = 0; i < PRODUCTS; i++) table[i] = _mm512_load_si512(tables[i]);
#pragma GCC unroll 4
    for (int p = 0; p < (R + 1) / 2; p++) {
        __m512i bits[3];
        load_pair<R>(bits, codes + 2 * p * stride, stride);
        const __m512i index[PRODUCTS] = {bits[0],
                                         _mm512_srli_epi16(bits[0], 5),
                                         _mm512_srli_epi16(bits[1], 2),
                                         _mm512_srli_epi16(bits[1], 7),
                                         _mm512_srli_epi16(bits[2], 4),
                                         _mm512_srli_epi16(bits[2], 9),
                                         _mm512_srli_epi16(bits[2], 14)};
#pragma GCC unroll 7
        for (int i = 0; i < PRODUCTS; i++)
            words[p] = _mm512_add_epi16(words[p], _mm512_permutexvar_epi16(index[i], table[i]));
    }
}

// d[r] += the products of `tiles` column tiles; codes are prefetched `ahead` bytes on.
template <int R>
void add_tiles(__m512i (&d)[R], const uint8_t* codes, int64_t stride, const int16_t (*tables)[PRODUCTS][32],
               int32_t tiles, int64_t ahead) {
    constexpr int pairs = (R + 1) / 2;
    for (int32_t c = 0; c < tiles; c += FLUSH) {
        const int count = tiles - c < FLUSH ? tiles - c : FLUSH;
        __m512i words[pairs];
#pragma GCC unroll 4
        for (int p = 0; p < pairs; p++) words[p] = _mm512_setzero_si512();
        for (int i = 0; i < count; i++, codes += TILE_BYTES, tables++) {
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) _mm_prefetch((const char*)codes + r * stride + ahead, _MM_HINT_T0);
            add_tile<R>(words, codes, stride, *tables);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const __m512i high = r % 2 ? words[r / 2] : _mm512_slli_epi32(words[r / 2], 16);
            d[r] = _mm512_add_epi32(d[r], _mm512_srai_epi32(high, 16));
        }
    }
}

struct Call {
    const tercet_matrix* w;
    const tercet_activations* x;
    Tables tables;
    Sums sums;
    int32_t begin, end; // column tiles the tables are of
};

// The chunk's products with row tiles tile .. tile+R, whose sums are at slot.
template <int R>
void add_rows(Call& call, int32_t tile, int slot) {
    const tercet_matrix* w = call.w;
    const int64_t stride = (int64_t)w->col_tiles * TILE_BYTES;
    const int32_t group_tiles = tiles_of_group<T19>(w);
    const uint8_t* codes = (const uint8_t*)w->codes + tile * stride;
    for (int32_t c = call.begin; c < call.end;) {
        const int32_t g = c / group_tiles, first = g * group_tiles, next = first + group_tiles;
        const int32_t end = next < call.end ? next : call.end;
        __m512i d[R];
        for (int r = 0; r < R; r++)
            d[r] = c == first ? _mm512_set1_epi32(-T19::offset * call.x->sum[g])
                              : _mm512_load_si512(call.sums.products[slot + r]);
        const auto add = [&](int32_t from, int32_t to, int64_t ahead) {
            if (from >= to) return;
            add_tiles<R>(d, codes + (int64_t)from * TILE_BYTES, stride, call.tables.of + (from - call.begin), to - from,
                         ahead);
        };
        // What is ahead of the chunk's last tiles is the chunk's part of the next row tiles.
        const int64_t jump = R * stride - (int64_t)(call.end - call.begin) * TILE_BYTES;
        const int32_t edge = c > call.end - AHEAD ? c : end < call.end - AHEAD ? end : call.end - AHEAD;
        add(c, edge, AHEAD * TILE_BYTES);
        add(edge, end, AHEAD * TILE_BYTES + jump);
        for (int r = 0; r < R; r++) {
            float* acc = call.sums.acc[slot + r];
            if (end == next || end == w->col_tiles)
                _mm512_store_ps(acc, scale_group(w, call.x, tile + r, g, d[r], _mm512_load_ps(acc)));
            else _mm512_store_si512(call.sums.products[slot + r], d[r]);
        }
        c = end;
    }
}

void add_chunk(Call& call, int32_t tile_begin, int tiles) {
    const tercet_matrix* w = call.w;
    const int32_t group_tiles = tiles_of_group<T19>(w);
    for (int32_t c = call.begin; c < call.end; c++) {
        const int32_t g = c / group_tiles, column = (c - g * group_tiles) * T19::columns;
        const int8_t* x = call.x->codes + g * w->group + column;
        make_tables(call.tables.of[c - call.begin], x, columns_of_group(w, g) - column);
    }
    int r = 0;
    for (; r + 8 <= tiles; r += 8) add_rows<8>(call, tile_begin + r, r);
    for (; r + 2 <= tiles; r += 2) add_rows<2>(call, tile_begin + r, r);
    if (r < tiles) add_rows<1>(call, tile_begin + r, r);
}

} // namespace

void t19_gemv(const tercet_matrix* w, const tercet_activations* x, const float* bias, float* y, int32_t tile_begin,
              int32_t tile_end) {
    Call call;
    call.w = w;
    call.x = x;
    for (int32_t tile = tile_begin; tile < tile_end; tile += BLOCK) {
        const int tiles = tile_end - tile < BLOCK ? tile_end - tile : BLOCK;
        memset(call.sums.acc, 0, sizeof call.sums.acc);
        for (call.begin = 0; call.begin < w->col_tiles; call.begin += CHUNK) {
            call.end = w->col_tiles - call.begin < CHUNK ? w->col_tiles : call.begin + CHUNK;
            add_chunk(call, tile, tiles);
        }
        for (int r = 0; r < tiles; r++) store_rows(w, tile + r, bias, _mm512_load_ps(call.sums.acc[r]), y);
    }
}

} // namespace tercet::avx512vnni
