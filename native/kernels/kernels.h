// The table of kernels that each ISA variant fills. Plain pointers and sizes; knows no program.
// Rows are steps' rows; `ld*` are strides in elements. Sizes may be any; buffers that kernels write
// in whole vectors are padded to 16 floats by their owner.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/block_shape.h"
#include "kernels/formats.h"

namespace bw {

constexpr int kPage = 64;  // positions of a KV page and of an attention chunk

// Functions of a gate, in the order of GATES of src/bandweave/programs/operations.py.
enum class GateFunction : int { silu = 0, gelu_tanh = 1, clamped_silu = 2, sigmoid = 3 };
constexpr int kGateFunctions = 4;

// Bytes of a block of a panel of a quantised format, a group or a super-block, and of its f16 or
// power-of-two scales (formats/packing.py).
constexpr BW_INLINE size_t scale_bytes(Format format) { return format == Format::mxfp4 ? 16 : 32; }
constexpr BW_INLINE size_t block_bytes(Format format) {
    if (keeps_blocks(format)) return block_shape(format).bytes();
    return scale_bytes(format) + (format == Format::q8 ? 512 : 256);
}
constexpr BW_INLINE int block_groups(Format format) {
    return keeps_blocks(format) ? block_shape(format).groups() : 1;
}

// How k is cut: units of `unit` columns (the last may be short), groups of 32 in each.
struct Layout {
    int k = 0;
    int unit = 0;

    // In a way that no int is too small for.
    BW_INLINE int units() const { return k == 0 ? 0 : k / unit + (k % unit != 0); }
    BW_INLINE int unit_size(int u) const {
        return u + 1 < units() ? unit : k - (units() - 1) * unit;
    }
    BW_INLINE int unit_groups(int u) const { return groups_of(unit_size(u)); }
    BW_INLINE int groups() const {
        return k == 0 ? 0 : (units() - 1) * groups_of(unit) + unit_groups(units() - 1);
    }
    static constexpr BW_INLINE int groups_of(int columns) {
        return columns / kGroup + (columns % kGroup != 0);
    }
};

BW_INLINE size_t panel_bytes(Format format, const Layout& layout) {
    switch (format) {
        case Format::f32:
            return static_cast<size_t>(layout.k) * kPanel * 4;
        case Format::bf16:
            return static_cast<size_t>(layout.k) * kPanel * 2;
        default:
            return static_cast<size_t>((layout.groups() + block_groups(format) - 1) /
                                       block_groups(format)) *
                   block_bytes(format);
    }
}

// Bytes of a group's integers in a quantised row of activations.
constexpr BW_INLINE size_t activation_integers(Format format) {
    return format == Format::q8 ? 64 : 32;
}

// Numbers of a group beside its scale: for each integer scale that the weights have there, the
// integers' sum times minus the weights' zero point, or for weights with minima the float that
// these are multiplied by.
constexpr BW_INLINE size_t activation_sums(Format format) {
    return keeps_blocks(format) ? static_cast<size_t>(block_shape(format).group_subs()) : 1;
}

// Bytes from one quantised row of activations to the next: integers, a scale and sums for each
// group, and what makes an odd number of cache lines of it. An even one would have the same places
// of several rows compete for the same sets of the first-level cache.
BW_INLINE size_t activation_bytes(Format format, const Layout& layout) {
    const size_t group = activation_integers(format) + 4 + 4 * activation_sums(format);
    const size_t bytes = static_cast<size_t>(layout.groups()) * group;
    return ((bytes + 63) / 64 | 1) * 64;
}

struct ProductArgs {
    const uint8_t* panels;  // the first panel of the range
    size_t panel_stride;    // bytes
    size_t ahead;           // bytes from what is read to what is fetched; 0: nothing is
    Layout layout;
    int outputs;  // outputs of the range; the last panel may be short
    int num_panels;
    int rows;
    const float* x;              // f32, bf16: [rows, ldx]
    const uint8_t* activations;  // quantised: `activation_stride` bytes a row, from quantize
    size_t ldx;
    size_t activation_stride;  // activation_bytes
    const float* bias;         // [outputs] padded to 16, or null (linear)
    float* y;                  // linear: [rows, ldy]
    int64_t* grid;             // linear_grid: [rows, ldy], padded to 16
    size_t ldy;
    const size_t* places;  // where each row's outputs begin instead, in elements; or null
    const float* factors;  // linear_grid: of each row's units, or null for 1
    bool add;              // linear_grid: to what is there already
    bool bad;              // out: a grid value out of range
};

constexpr int kContentLanes = 8;

// Most queries that one call of the attention kernel keeps in registers together.
constexpr int kQueriesTogether = 8;

// Queries of some rows of one sequence, which read the same KV head: of one row any number of
// heads, of several kQueriesTogether in all.
struct AttentionArgs {
    const float* q;            // row r's query heads, [heads, dim], are at q + r * q_stride
    size_t q_stride;           // floats
    const int32_t* positions;  // [rows]
    const void* const* pages;  // page p: this KV head's keys, then values (see kv_head_bytes)
    int rows, heads, window, dim;
    float scale;
    float cap;           // of the scores, 0 for none
    const float* sinks;  // [heads]: a score that no key has, or null
    bool half;           // f16 cache, else f32
    float* out;          // row r's, [heads, dim], go to out + r * out_stride
    size_t out_stride;
    float* scratch;  // attention_scratch(dim) floats
};

// Queries that one call of the latent kernel takes through each page together.
constexpr int kLatentQueries = 64;

// Queries of some rows of one sequence, `heads` of each row, kLatentQueries in all at most. A page
// is [64 positions][padded k_dim]; a key's first v_dim elements are its value.
struct LatentArgs {
    const float* q;  // row r's, [heads, k_dim], are at q + r * q_stride
    size_t q_stride;
    const int32_t* positions;  // [rows]
    const void* const* pages;
    int rows, heads, k_dim, v_dim;
    float scale;
    bool half;
    float* out;  // row r's, [heads, v_dim]
    size_t out_stride;
    float* scratch;  // latent_scratch floats
};

constexpr int kMostTaps = 64;  // of a convolution

// Channels [from, from + count) of rows: y[r] = silu(sum over i of weights[channel, i] * x[r + i]),
// i from 0 to `taps`.
struct ConvArgs {
    const float* const* x;  // rows + taps - 1 of them
    float* const* y;
    const float* weights;  // [channels, taps]
    int rows, taps, from, count;
};

// A row's change of one head's state, of which `columns` are meant, 64 at most: it is multiplied by
// `keep`, then the key's part of it moves to the value, as far as `write` says.
struct DeltaArgs {
    float* state;   // [k_dim, stride], whole vectors of it
    size_t stride;  // floats
    int k_dim, columns;
    const float* q;  // [k_dim], or null where nothing is asked
    const float* k;
    const float* v;  // [columns]
    float write, keep;
    float* out;  // [columns]: what the state then gives for the query
};

struct Kernels {
    const char* name;
    // Returns false where an amax is not finite.
    bool (*quantize)(Format, const float* x, const Layout&, uint8_t* activations);
    void (*linear[kFormats])(ProductArgs&);  // by Format
    void (*linear_grid[kFormats])(ProductArgs&);
    void (*rms_norm)(const float* x, const float* weight, float* y, int n, float eps);
    void (*layer_norm)(const float* x, const float* weight, float* y, int n, float eps);
    float (*sum_squares)(const float* x, int n);
    // y[i] = x[i] * factor * weight[i]
    void (*scale_by)(const float* x, float factor, const float* weight, float* y, int n);
    // `limit` and `alpha` are those of clamped_silu.
    void (*gated_mul)(GateFunction, const float* gate, const float* up, float* y, int n,
                      float limit, float alpha);
    // Turns `rotary` elements, in pairs of neighbours where `interleaved`, else of halves.
    void (*rope)(float* head, const float* cosine, const float* sine, int rotary, bool interleaved);
    // Writes one position of one KV head; false where a stored value is not finite.
    bool (*kv_store)(void* head_page, const float* k, const float* v, int place, int dim,
                     bool half);
    void (*attention)(const AttentionArgs&);
    // Writes one position of a latent cache; false where a stored number is not finite.
    bool (*latent_store)(void* page, const float* k, int place, int dim, bool half);
    void (*latent_attention)(const LatentArgs&);
    // x[i] += grid[i] * 2^-24 (+ bias); false where a sum is out of range.
    bool (*residual_add)(const int64_t* grid, const float* bias, float* x, int n);
    // y[i] = x[i] + other[i] * factor
    void (*add_scaled)(const float* x, const float* other, float factor, float* y, int n);
    void (*scale)(const float* x, float factor, float* y, int n);
    void (*soft_cap)(const float* x, float cap, float* y, int n);
    void (*exp)(const float* x, float* y, size_t n);
    // Softmax over n logits, and the logistic function of each.
    void (*softmax)(const float* x, float* y, int n);
    void (*sigmoid)(const float* x, float* y, int n);
    // y = x / root(sum of squares + eps) * factor
    void (*l2_norm)(const float* x, float* y, int n, float eps, float factor);
    // y[i] = exp(-exp(rate[i]) * softplus(x[i] + step[i]))
    void (*decay)(const float* x, const float* rate, const float* step, float* y, int n);
    void (*short_conv)(const ConvArgs&);
    void (*delta_rule)(const DeltaArgs&);
    // grid[i] += factor * bias[i] on the grid, of n numbers padded to 16; false where one is out of
    // range.
    bool (*grid_bias)(const float* bias, float factor, int64_t* grid, int n);
    // Index of the largest element, the first on ties; -1 where one is not finite. n >= 1.
    int (*argmax)(const float* x, int n);
    // Adds one row to the content sums of its blocks (content_sums.h): `count` bytes, of which
    // `block` or fewer belong to each block; kContentLanes sums a block.
    void (*content_row)(const uint8_t* bytes, size_t count, size_t block, uint64_t row_key,
                        uint64_t* sums);
};

// KV page of one head: keys as 4 blocks of [dim][16 positions], then values [64][padded dim].
BW_INLINE int padded(int n) { return (n + 15) / 16 * 16; }
BW_INLINE size_t kv_head_bytes(int dim, bool half) {
    size_t elements = static_cast<size_t>(kPage) * (static_cast<size_t>(dim) + padded(dim));
    return elements * (half ? 2 : 4);
}

// Floats: sums, a chunk's sums, and queries of several rows side by side; weights of a chunk.
BW_INLINE size_t attention_scratch(int dim) {
    return size_t{kQueriesTogether} * (3 * static_cast<size_t>(padded(dim)) + kPage);
}

BW_INLINE size_t latent_page_bytes(int k_dim, bool half) {
    return static_cast<size_t>(kPage) * static_cast<size_t>(padded(k_dim)) * (half ? 2 : 4);
}

// Floats: a page's keys and values, a chunk's sums and scores, and all queries' sums.
BW_INLINE size_t latent_scratch(int k_dim, int v_dim) {
    const auto wide = static_cast<size_t>(padded(v_dim));
    return static_cast<size_t>(kPage) * (static_cast<size_t>(k_dim) + wide) + 8 * (wide + kPage) +
           static_cast<size_t>(kLatentQueries) * wide + 16;
}

// The variants; CMakeLists.txt says which are compiled for a processor family, isa.cpp which of
// them a processor can run.
#define BW_DECLARE_VARIANT(name) \
    namespace name {             \
    const Kernels& kernels();    \
    }
BW_DECLARE_VARIANT(avx512_amx)
BW_DECLARE_VARIANT(avx512)
BW_DECLARE_VARIANT(avx2_vnni)
BW_DECLARE_VARIANT(avx2)
BW_DECLARE_VARIANT(neon_i8mm)
BW_DECLARE_VARIANT(neon_dotprod)
BW_DECLARE_VARIANT(neon)
BW_DECLARE_VARIANT(portable)
#undef BW_DECLARE_VARIANT

}  // namespace bw
