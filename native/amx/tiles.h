// The tile registers: eight of 16 rows x 64 bytes. Inline assembly, for GCC's intrinsics neither tell the compiler that
// a tile load reads memory nor take the register as a template argument.
// While tile instructions are under way, 512-bit float operations have one port instead of two (measured on Sapphire
// Rapids; integer ones keep both).
#ifndef TERCET_AMX_TILES_H
#define TERCET_AMX_TILES_H

#include <stdint.h>

namespace tercet::amx {

// Sums of tokens a and row tile r are in register 2a+r, activations in 4 and 5, weights in 6 and 7. Given back at the
// end, so that the system need not save 8 KB whenever it switches threads.
class Tiles {
  public:
    // `tokens` are the rows of sums and activations, `columns` the width of activations (a multiple of 4, at most 64).
    Tiles(int tokens, int columns) {
        Config config;
        for (int i = 0; i < 8; i++) {
            config.rows[i] = (uint8_t)(i < 6 ? tokens : columns / 4);
            config.bytes[i] = (uint16_t)(i == 4 || i == 5 ? columns : 64);
        }
        asm volatile("ldtilecfg %0" : : "m"(config));
    }
    ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

  private:
    struct Config {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    };
};

template <int Tile>
inline void load_tile(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
inline void store_tile(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
inline void zero_tile() {
    asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}

// Sum += A * B: signed bytes of both, exact.
template <int Sum, int A, int B>
inline void multiply_tiles() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
}

} // namespace tercet::amx
#endif
