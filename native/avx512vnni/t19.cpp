// Base-27 ternary weights with several tokens: unpacked to bytes T+1 for gemm.h's micro-kernel. vpermi2d, a table of 32
// lanes, turns a field into its three bytes. A tile's 19 columns are no whole quads: in 4 tiles, 76 columns, fields and
// quads meet again. So there are four tables, with the bytes turned by 0 .. 3, and a quad is put together of two
// fields' bytes: columns lie as in the activations, and the micro-kernel is that of every format.
#include "t19.h"

#include "gemm.h"

namespace tercet {
namespace avx512vnni {
namespace {

constexpr int ROW_CHUNK = 24 * T19::columns; // columns unpacked at once: 456, whole quads but at the row's end
constexpr int GROUPS_CHUNK = 3;              // groups unpacked at once, each from a quad's start

struct Digits { // of a code, for every place in the quad where a field's first column can be, and of the last column
    alignas(64) uint8_t field[4][32][4], last[TERCET_ROWS][4];
};

constexpr Digits make_digits() {
    Digits digits{};
    for (int code = 0; code < 32; code++)
        for (int place = 0; place < 4; place++)
            for (int i = 0, power = 1; i < 3; i++, power *= 3)
                digits.field[place][code][(place + i) % 4] = (uint8_t)(code > 26 ? 1 : code / power % 3);
    for (int code = 0; code < TERCET_ROWS; code++) // in the upper two of four bits, in every byte
        for (int i = 0; i < 4; i++) digits.last[code][i] = (uint8_t)(code / 4 == 3 ? 1 : code / 4);
    return digits;
}

constexpr Digits DIGITS = make_digits();

// Writes a row tile's bytes quad after quad, `step` bytes apart.
struct Writer {
    uint8_t* to;
    int64_t step;
    __m512i pending; // bytes of the quad that is not full

    void store(__m512i quad) {
        _mm512_store_si512(to, quad);
        to += step;
    }

    // Bytes from `place` on are of `next`, those before of the pending quad.
    template <int Place>
    __m512i joined(__m512i next) const {
        const __m512i mask = _mm512_set1_epi32((int32_t)(0xffffffffu << (8 * Place)));
        return _mm512_ternarylogic_epi32(mask, next, pending, 0xca); // mask ? next : pending
    }

    template <int Place>
    void put_field(__m512i index) {
        const uint8_t(*table)[4] = DIGITS.field[Place];
        const __m512i digits =
            _mm512_permutex2var_epi32(_mm512_load_si512(table), index, _mm512_load_si512(table + TERCET_ROWS));
        if constexpr (Place != 0) store(joined<Place>(digits));
        pending = digits;
    }

    template <int Place>
    void put_last(__m512i index) {
        pending = joined<Place>(_mm512_permutexvar_epi32(index, _mm512_load_si512(DIGITS.last)));
        if constexpr (Place == 3) store(pending);
    }

    template <int Tile> // of 4: where its columns start in a quad
    void put_tile(const uint8_t* codes) {
        constexpr int start = T19::columns * Tile % 4;
        const __m512i tile = _mm512_loadu_si512(codes);
        put_field<start>(tile);
        put_field<(start + 3) % 4>(_mm512_srli_epi32(tile, 5));
        put_field<(start + 6) % 4>(_mm512_srli_epi32(tile, 10));
        put_field<(start + 9) % 4>(_mm512_srli_epi32(tile, 15));
        put_field<(start + 12) % 4>(_mm512_srli_epi32(tile, 20));
        put_field<(start + 15) % 4>(_mm512_srli_epi32(tile, 25));
        put_last<(start + 18) % 4>(_mm512_srli_epi32(tile, 28));
    }
};

// Column tiles begin .. begin+count, from the chunk's quad `quad` on.
void unpack_tiles(Panel& p, int32_t quad, int32_t begin, int32_t count) {
    for (int r = 0; r < p.tiles; r++) {
        const uint8_t* codes =
            (const uint8_t*)p.w->codes + ((int64_t)(p.tile + r) * p.w->col_tiles + begin) * TILE_BYTES;
        Writer writer{p.weights + (quad * p.tiles + r) * TILE_BYTES, p.tiles * TILE_BYTES, _mm512_setzero_si512()};
        int32_t c = 0;
        for (; c + 4 <= count; c += 4, codes += 4 * TILE_BYTES) {
            writer.put_tile<0>(codes);
            writer.put_tile<1>(codes + TILE_BYTES);
            writer.put_tile<2>(codes + 2 * TILE_BYTES);
            writer.put_tile<3>(codes + 3 * TILE_BYTES);
        }
        if (c < count) writer.put_tile<0>(codes);
        if (c + 1 < count) writer.put_tile<1>(codes + TILE_BYTES);
        if (c + 2 < count) writer.put_tile<2>(codes + 2 * TILE_BYTES);
        if (c < count) writer.store(writer.pending);
    }
}

// One panel with at most MOST_TOKENS tokens. A last quad's bytes past the columns meet activations that are 0.
void multiply_t19_panel(Panel& p, int32_t token, int tokens) {
    const int32_t cols = p.w->cols, group = p.w->group, group_tiles = tiles_of_group<T19>(p.w);
    const bool whole = p.w->groups == 1; // one scale a row
    const int32_t chunk = whole ? ROW_CHUNK : GROUPS_CHUNK * group, part = whole ? ROW_CHUNK : group;
    memset(p.acc, 0, (size_t)(tokens * p.tiles * TERCET_ROWS) * sizeof(float));
    p.group_quads = (part + 3) / 4;
    for (p.column = 0; p.column < cols; p.column += chunk) {
        const int32_t here = cols - p.column < chunk ? cols - p.column : chunk;
        p.quads = (here + 3) / 4;
        p.group = whole ? 0 : p.column / group;
        p.first = !whole || p.column == 0;
        p.last = !whole || p.column + chunk >= cols;
        for (int32_t c = 0; c < here; c += part) {
            const int32_t tile = whole ? p.column / T19::columns : (p.column + c) / group * group_tiles;
            unpack_tiles(p, c / 4, tile, ((here - c < part ? here - c : part) + T19::columns - 1) / T19::columns);
        }
        multiply_chunk(p, token, tokens);
    }
}

} // namespace
} // namespace avx512vnni

TERCET_LINEAR(t19_linear_avx512vnni) {
    if (x->n != 1) {
        avx512vnni::gemm<T19, avx512vnni::multiply_t19_panel>(w, x, bias, y, y_stride, tile_begin, tile_end);
        return;
    }
    avx512vnni::t19_gemv(w, x, bias, y, tile_begin, tile_end);
}

} // namespace tercet
