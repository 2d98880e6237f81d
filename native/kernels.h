// The contract between the engine and the instruction sets: one table of functions each, plain C.
//
// Every float result is bit-identical in every backend (docs/format.md, "Arithmetic"): the functions differ in speed
// only. No function allocates, throws or reads outside the arrays it is given, whatever the codes' bytes are.
// Work is split by the caller over row tiles, tokens or heads, never over columns or keys.
#ifndef TERCET_KERNELS_H
#define TERCET_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TERCET_ROWS = 16 };      // rows of a tile: one 32-bit lane each
enum { TERCET_KEY_BLOCK = 64 }; // keys of an attention block, aligned to absolute position
enum { TERCET_SAMPLE_CHUNK = 1024 };
enum { TERCET_MOST_ORDER = 512 }; // of a Hadamard matrix that is not a power of two

typedef enum {
    TERCET_T2 = 0,  // 16x16 tiles, 2-bit codes stored T+1
    TERCET_B1 = 1,  // 16x32 tiles, 1-bit codes, T = 2b-1
    TERCET_Q8 = 2,  // 16x4 tiles, int8
    TERCET_Q4 = 3,  // 16x8 tiles, nibbles stored q+8
    TERCET_T19 = 4, // 16x19 tiles, ternary: six base-27 fields of 5 bits and a 2-bit code
    TERCET_PACKED_FORMATS = 5,
    TERCET_F16 = 5, // row-major floats: layers kept as they were
    TERCET_F32 = 6,
} tercet_format;

// A weight matrix read in place. Packed formats: codes u8[ceil(rows/16)][col_tiles][64], scale and shift
// f16[ceil(rows/16)][groups][16]. Float formats: codes is f16/f32[rows][cols], no scales.
typedef struct {
    int32_t format;
    int32_t rows, cols;
    int32_t group;  // columns that share a scale: whole tiles (t19: 128 in 7 tiles); a row's: col_tiles * tile columns
    int32_t groups; // ceil(cols / group)
    int32_t col_tiles;
    const void* codes;
    const uint16_t* scale;
    const uint16_t* shift; // NULL: none
} tercet_matrix;

// NULL where the fields fit one another and the kernels' bounds (sizes only: the arrays are the caller's word), else
// what does not, in English. Every matrix passes it once before a kernel reads it.
const char* tercet_matrix_error(const tercet_matrix* w);

// Columns of a packed format's tile; col_tiles of a matrix with groups of `group` columns (>= cols: the row's).
int32_t tercet_tile_columns(int32_t format);
int32_t tercet_col_tiles(int32_t format, int32_t cols, int32_t group);

// n tokens quantized to int8, a scale and a sum per token and group. Columns past `cols` are 0 up to `stride`.
typedef struct {
    int32_t n;
    int32_t groups;
    int64_t stride;      // bytes between tokens: at least cols rounded up to 64
    const int8_t* codes; // [n][stride], -127..127
    const float* scale;  // [n][groups]
    const int32_t* sum;  // [n][groups]
} tercet_activations;

typedef enum { TERCET_KV_F16 = 0, TERCET_KV_F32 = 1, TERCET_KV_I8 = 2 } tercet_kv_type;

// The cache of one layer of one sequence, in blocks of 64 positions. A KV head's part of a block: keys [head_dim][64], so
// that a vector lane is a key; values [64][head_dim], so that a lane is a dimension; int8: then scales of the keys f32[64]
// and of the values f32[64]. tercet_kv_block_bytes says how much that is: a multiple of 64.
typedef struct {
    int32_t type; // tercet_kv_type
    int64_t head_stride, block_stride; // bytes from a KV head, and from a block, to the next
    void* blocks;                      // aligned to 64
} tercet_kv;

static inline size_t tercet_kv_block_bytes(int32_t type, int32_t head_dim) {
    const size_t element = type == TERCET_KV_F16 ? 2 : type == TERCET_KV_F32 ? 4 : 1;
    const size_t scales = type == TERCET_KV_I8 ? 2 * TERCET_KEY_BLOCK * sizeof(float) : 0;
    return 2 * TERCET_KEY_BLOCK * (size_t)head_dim * element + scales;
}

typedef struct {
    int32_t heads, kv_heads, head_dim;
    int32_t window;   // keys a token sees, itself included; 0: all before it
    float scale;      // multiplies q.k
    int32_t keys;     // not 0: every token sees this many, whatever its position
} tercet_attention;

// A rotation of `dim` values: dim = order * 2^k, signs f32[order][order] of +-1. Of order 1 it has none.
typedef struct {
    int32_t dim, order;
    const float* signs;
} tercet_rotation;
// Of a block of so many columns, at most TERCET_MOST_ORDER; 0 where there is no such matrix.
int32_t tercet_hadamard_order(int32_t block);
void tercet_hadamard_signs(int32_t order, float* signs);

typedef enum { TERCET_SILU = 0, TERCET_GELU = 1, TERCET_GELU_TANH = 2, TERCET_QUICK_GELU = 3 } tercet_activation;

typedef struct {
    const char* name;

    // x f32[n][x_stride] -> codes, scale, sum as in tercet_activations (all of [n][stride] written, padding 0).
    // Returns 0, or 1 if a value is not finite (then the outputs are unspecified but written within bounds).
    int (*quantize)(const float* x, int64_t x_stride, int32_t n, int32_t cols, int32_t group, int32_t groups,
                    int64_t stride, int8_t* codes, float* scale, int32_t* sum);

    // y f32[n][y_stride]: rows 16*tile_begin .. min(16*tile_end, rows). bias f32[rows] or NULL. Indexed by format; NULL
    // where the instruction set cannot read a format in place: t19 is then converted to t2.
    void (*linear[TERCET_PACKED_FORMATS])(const tercet_matrix* w, const tercet_activations* x, const float* bias,
                                          float* y, int64_t y_stride, int32_t tile_begin, int32_t tile_end);

    // The same product with float activations, for any format: kept layers, and the check of the packed kernels.
    void (*linear_float)(const tercet_matrix* w, const float* x, int64_t x_stride, int32_t n, const float* bias,
                         float* y, int64_t y_stride, int32_t tile_begin, int32_t tile_end);

    // One row of a matrix of any format, dequantized, times `factor`: y f32[cols]. The token embedding.
    void (*row)(const tercet_matrix* w, int32_t row, float factor, float* y);

    // y[r] = norm(x[r]) over `dim`, for `rows` rows; in place allowed. LayerNorm's bias may be NULL.
    void (*rmsnorm)(const float* x, const float* weight, float eps, int32_t rows, int32_t dim, float* y);
    void (*layernorm)(const float* x, const float* weight, const float* bias, float eps, int32_t rows, int32_t dim,
                      float* y);

    // Rotates halves in place: x f32[heads][head_dim] of one token, cos/sin f32[rotary_dim/2] of its position.
    void (*rope)(float* x, const float* cos, const float* sin, int32_t heads, int32_t head_dim, int32_t rotary_dim);

    // Stores one token's k, v f32[kv_heads][head_dim] at `position`.
    void (*kv_store)(const tercet_kv* kv, const float* k, const float* v, int32_t kv_heads, int32_t head_dim,
                     int64_t position);

    // Query heads head .. head+heads, all of one KV head, of n tokens at `position` and the n-1 positions after it, whose
    // keys and those before are in the cache. q, out f32[n][a->heads][head_dim].
    void (*attention)(const tercet_attention* a, const tercet_kv* kv, const float* q, float* out, int32_t n,
                      int64_t position, int32_t head, int32_t heads);

    // y may be x, gate or up, a or b.
    void (*activate)(int32_t activation, const float* x, int64_t n, float* y);
    void (*gated)(int32_t activation, const float* gate, const float* up, int64_t n, float* y); // act(gate) * up
    void (*add)(const float* a, const float* b, int64_t n, float* y);
    void (*clip)(const float* x, int64_t n, float limit, float* y); // to -limit .. limit; a NaN stays. y may be x

    // y = H x, the orthonormal Hadamard transform of each r->dim values; n a multiple of dim. y may be x.
    void (*rotate)(const float* x, int64_t n, const tercet_rotation* r, float* y);

    // Of each chunk of TERCET_SAMPLE_CHUNK values, the highest of elements j, j+16, ...: highest f32[chunks][16], -inf
    // where there are none.
    void (*maxima)(const float* x, int64_t n, float* highest);

    // w = exp((x - top) * factor), 0 where that is below `least`; x <= top. y f32[n] = w, may be x; sums f32[chunks] of
    // w over chunks of TERCET_SAMPLE_CHUNK values. Either may be NULL.
    void (*weights)(const float* x, int64_t n, float top, float factor, float least, float* y, float* sums);
} tercet_backend;

// Chosen once: the best the CPU has, or TERCET_ISA=scalar|avx2|avx512vnni|amx|neon. NULL where the name is unknown or
// the CPU lacks it; tercet_backend_error() then says which.
const tercet_backend* tercet_backend_default(void);
const tercet_backend* tercet_backend_named(const char* name);
const char* tercet_backend_error(void);

// Names this build and CPU can run, best first, NULL-terminated.
const char* const* tercet_backend_names(void);

#ifdef __cplusplus
}
#endif
#endif
