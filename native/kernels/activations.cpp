// Activations as integers with scales, for products of quantised formats: docs/numerics.md, section
// 3. One text for every ISA variant.
#include "kernels/dot.h"
#include "kernels/math.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {
namespace {

// Corrections as corrects_pairs says, of a group's integers or of each half of them.
inline void pair_corrections(Format format, VecI a, VecI b, int32_t* sums) {
    int32_t integers[kGroup];
    store_int(integers, a);
    store_int(integers + 16, b);
    const int count = static_cast<int>(activation_sums(format)), zero = zero_point(format);
    int low[2] = {}, high[2] = {};
    for (int half = 0; half < 2; half++)
        for (int at = 16 * half; at < 16 * half + 16; at += 4) {
            low[half] += integers[at] + integers[at + 1];
            high[half] += integers[at + 2] + integers[at + 3];
        }
    if (count == 1) low[0] += low[1], high[0] += high[1];
    for (int i = 0; i < count; i++) {
        const int16_t pair[2] = {static_cast<int16_t>(-zero * low[i]),
                                 static_cast<int16_t>(-zero * high[i])};
        __builtin_memcpy(sums + i, pair, sizeof pair);
    }
}

// What products with GGUF's blocks need of a group's integers beside their scale: see
// activation_sums.
inline void block_sums(const BlockShape& shape, VecI a, VecI b, float scale, int32_t* sums) {
    int32_t totals[2] = {reduce_iadd(a), reduce_iadd(b)};
    if (shape.sub == kGroup) totals[0] += totals[1];
    for (int i = 0; i < shape.group_subs(); i++) {
        const float weight = static_cast<float>(totals[i]) * scale;
        sums[i] = -shape.zero_point * totals[i];
        if (shape.minima) __builtin_memcpy(sums + i, &weight, sizeof weight);
    }
}

// One group of `n` <= 32 elements: integers, scale and correction sums.
inline bool quantize_group(Format format, const float* x, int n, uint8_t* integers, float* scale,
                           int32_t* sum) {
    int low = n < 16 ? n : 16;
    VecF a = low == 16 ? load(x) : load_first(x, low);
    VecF b = n == 32 ? load(x + 16) : (n > 16 ? load_first(x + 16, n - 16) : zero());
    int32_t bits = reduce_imax(imax(abs_bits(a), abs_bits(b)));
    float amax;
    __builtin_memcpy(&amax, &bits, sizeof amax);
    if (bits >= 0x7f800000 || amax < kSmallestStored) {
        __builtin_memset(integers, 0, activation_integers(format));
        *scale = 0.0f;
        __builtin_memset(sum, 0, 4 * activation_sums(format));
        return bits < 0x7f800000;
    }
    const float top = format == Format::q8 ? 32512.0f : 127.0f;
    VecF inverse = set1(top / amax);
    *scale = amax / top;
    VecI qa = to_int(mul(a, inverse)), qb = to_int(mul(b, inverse));
    if (format != Format::q8) {
        auto* out = reinterpret_cast<int8_t*>(integers);
        store_int8(out, qa);
        store_int8(out + 16, qb);
    }
    if (corrects_pairs(format)) {
        pair_corrections(format, qa, qb, sum);
        return true;
    }
    if (keeps_blocks(format)) {
        block_sums(block_shape(format), qa, qb, *scale, sum);
        return true;
    }
    int32_t total = reduce_iadd(iadd(qa, qb));
    if (format != Format::q8) {
        *sum = -zero_point(format) * total;
        return true;
    }
    if (kWideIntegers == WideIntegers::planes) {
        auto* high = reinterpret_cast<int8_t*>(integers);
        int8_t* rest = high + 32;
        VecI ha = shift_right_8(iadd(qa, iset1(128))), hb = shift_right_8(iadd(qb, iset1(128)));
        store_int8(high, ha);
        store_int8(high + 16, hb);
        store_int8(rest, isub(qa, shift_left_8(ha)));
        store_int8(rest + 16, isub(qb, shift_left_8(hb)));
        *sum = -128 * total;
        return true;
    }
    auto* out = reinterpret_cast<int16_t*>(integers);
    if (kWideIntegers == WideIntegers::in_order) {
        store_int16(out, qa);
        store_int16(out + 16, qb);
        *sum = 0;
        return true;
    }
    int32_t in_order[kGroup];
    store_int(in_order, qa);
    store_int(in_order + 16, qb);
    for (int i = 0; i < kGroup; i += 4) {
        out[i] = static_cast<int16_t>(in_order[i]);
        out[i + 1] = static_cast<int16_t>(in_order[i + 2]);
        out[i + 2] = static_cast<int16_t>(in_order[i + 1]);
        out[i + 3] = static_cast<int16_t>(in_order[i + 3]);
    }
    *sum = -128 * total;
    return true;
}

}  // namespace

bool quantize(Format format, const float* x, const Layout& layout, uint8_t* activations) {
    int groups = layout.groups();
    uint8_t* integers = activations;
    const size_t each = activation_integers(format), own_sums = activation_sums(format);
    auto* scales = reinterpret_cast<float*>(activations + static_cast<size_t>(groups) * each);
    auto* sums = reinterpret_cast<int32_t*>(scales + groups);
    bool finite = true;
    int group = 0, units = layout.units();
    for (int u = 0; u < units; u++) {
        const float* at = x + static_cast<size_t>(u) * layout.unit;
        int left = layout.unit_size(u);
        for (; left > 0; left -= kGroup, at += kGroup, group++) {
            int n = left < kGroup ? left : kGroup;
            finite &= quantize_group(format, at, n, integers + static_cast<size_t>(group) * each,
                                     scales + group, sums + static_cast<size_t>(group) * own_sums);
        }
    }
    return finite;
}

}  // namespace bw::BW_ISA_NAME
