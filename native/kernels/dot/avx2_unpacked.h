// Groups of weights on AVX2 alone, unpacked once for many rows, and their dots with four rows at a
// time. Three kinds of dots serve all formats: of codes as bytes, of a book's numbers, and of
// int16.
#pragma once
#include <type_traits>

#include "kernels/dot/avx2_blocks.h"

namespace bw::BW_ISA_NAME {

constexpr int kRowsUnpacked = 4;  // of one call of `dots`

inline __m256i load_256(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store_256(uint8_t* p, __m256i x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}

// What is added for the weights' zero point: nothing, numbers for the pair sums, or for their sum.
enum class Corrections { none, pairs, whole };

// Codes as bytes, four columns a line of 64; before them scales as pairs of int16, kSubs lines of
// them for as many runs of columns. The pair sums of kSteps lines fit an int16 together.
template <int kSteps, int kSubs, Corrections kCorrections>
struct ByteDots {
    static constexpr size_t kLinesAt = 64 * kSubs, kBytes = kLinesAt + 512;
    static constexpr bool kPairs = kCorrections == Corrections::pairs;
    static_assert(!kPairs || kSteps * kSubs == 8, "each run of columns has its own");

    static __attribute__((noinline)) void dots(const uint8_t* group, int groups,
                                               const uint8_t* const* rows,
                                               const int32_t* const* sums, VecI* to) {
        constexpr int R = kRowsUnpacked;
        for (int g = 0; g < groups; g++, group += kBytes, to += R) {
            VecI total[R];
            for (int r = 0; r < R; r++)
                total[r] = kCorrections == Corrections::whole ? iset1(sums[r][g]) : izero();
            unrolled<8 / kSteps>([&](auto number) BW_UNROLLED {
                constexpr int kChunk = decltype(number)::value;
                constexpr int kSub = kChunk * kSubs * kSteps / 8;
                __m256i pairs[R][2];
                for (int r = 0; kPairs && r < R; r++)
                    pairs[r][0] = pairs[r][1] = _mm256_set1_epi32(sums[r][kSubs * g + kSub]);
                unrolled<kSteps>([&](auto step) BW_UNROLLED {
                    constexpr int kAt = kChunk * kSteps + decltype(step)::value;
                    constexpr bool kFirst = !kPairs && decltype(step)::value == 0;
                    const uint8_t* line = group + kLinesAt + 64 * kAt;
                    const __m256i low = load_256(line), high = load_256(line + 32);
                    for (int r = 0; r < R; r++) {
                        const __m256i a = _mm256_set1_epi32(four(rows[r] + kGroup * g + 4 * kAt));
                        const __m256i x = _mm256_maddubs_epi16(low, a);
                        const __m256i y = _mm256_maddubs_epi16(high, a);
                        pairs[r][0] = kFirst ? x : add_16(pairs[r][0], x);
                        pairs[r][1] = kFirst ? y : add_16(pairs[r][1], y);
                    }
                });
                const __m256i low = load_256(group + 64 * kSub);
                const __m256i high = load_256(group + 64 * kSub + 32);
                for (int r = 0; r < R; r++)
                    total[r] = {add_32(total[r].a, _mm256_madd_epi16(pairs[r][0], low)),
                                add_32(total[r].b, _mm256_madd_epi16(pairs[r][1], high))};
            });
            for (int r = 0; r < R; r++) to[r] = total[r];
        }
    }
};

// A book's numbers, four columns a line of 64 bytes, and their magnitudes in 512 bytes after them;
// scales come first.
struct BookDots {
    static constexpr size_t kLinesAt = 64, kBytes = kLinesAt + 1024;

    static __attribute__((noinline)) void dots(const uint8_t* group, int groups,
                                               const uint8_t* const* rows, const int32_t* const*,
                                               VecI* to) {
        constexpr int R = kRowsUnpacked;
        for (int g = 0; g < groups; g++, group += kBytes, to += R) {
            const __m256i scales[2] = {load_256(group), load_256(group + 32)};
            __m256i sums[R][2];
            for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
            for (int at = 0; at < 8; at++) {
                for (int half = 0; half < 2; half++) {
                    const uint8_t* line = group + kLinesAt + 64 * at + 32 * half;
                    const __m256i values = load_256(line), sizes = load_256(line + 512);
                    for (int r = 0; r < R; r++) {
                        const __m256i a = _mm256_set1_epi32(four(rows[r] + kGroup * g + 4 * at));
                        const __m256i x = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(a, values));
                        sums[r][half] = add_32(sums[r][half], _mm256_madd_epi16(x, scales[half]));
                    }
                }
            }
            for (int r = 0; r < R; r++) to[r] = {sums[r][0], sums[r][1]};
        }
    }
};

// Weights as int16, two columns of each output a line: the first and the third in four, the others.
struct WordDots {
    static constexpr size_t kLinesAt = 0, kBytes = 1024;

    static __attribute__((noinline)) void dots(const uint8_t* group, int groups,
                                               const uint8_t* const* rows, const int32_t* const*,
                                               VecI* to) {
        constexpr int R = kRowsUnpacked;
        for (int g = 0; g < groups; g++, group += kBytes, to += R) {
            __m256i total[R][2];
            unrolled<16>([&](auto number) BW_UNROLLED {
                constexpr int kAt = decltype(number)::value;
                const __m256i low = load_256(group + 64 * kAt),
                              high = load_256(group + 64 * kAt + 32);
                for (int r = 0; r < R; r++) {
                    const __m256i a = _mm256_set1_epi32(four(rows[r] + 64 * g + 4 * kAt));
                    const __m256i x = _mm256_madd_epi16(low, a), y = _mm256_madd_epi16(high, a);
                    total[r][0] = kAt == 0 ? x : add_32(total[r][0], x);
                    total[r][1] = kAt == 0 ? y : add_32(total[r][1], y);
                }
            });
            for (int r = 0; r < R; r++) to[r] = {total[r][0], total[r][1]};
        }
    }
};

template <Format kFormat>
struct Unpacked {
    using Pairs = PairSums<kFormat>;
    static constexpr bool kBook = Pairs::kShape.book;
    static constexpr int kSubs = Pairs::kShape.group_subs();
    static constexpr auto kCorrections = Pairs::kZeros ? Corrections::pairs : Corrections::none;
    using Dots = std::conditional_t<kBook, BookDots, ByteDots<Pairs::kSteps, kSubs, kCorrections>>;

    static void unpack(const uint8_t* lines, const uint8_t* scales, uint8_t* to) {
        for (int i = 0; i < kSubs; i++) {
            store_256(to + 64 * i, Pairs::template scales<0>(scales + kPanel * i));
            store_256(to + 64 * i + 32, Pairs::template scales<1>(scales + kPanel * i));
        }
        to += Dots::kLinesAt;
        unrolled<8>([&](auto at) BW_UNROLLED {
            constexpr int kAt = decltype(at)::value;
            for (int half = 0; half < 2; half++) {
                uint8_t* line = to + 64 * kAt + 32 * half;
                __m256i q = block_codes<kFormat, kAt, HalfLines>(lines + 32 * half);
                if constexpr (kBook) {
                    q = Pairs::book(q);
                    store_256(line + 512, _mm256_abs_epi8(q));
                }
                store_256(line, q);
            }
        });
    }
};

template <class Codes>
struct UnpackedCodes {
    using Pairs = CodePairs<Codes>;
    using Dots = std::conditional_t<Pairs::kAll, ByteDots<8, 1, Corrections::pairs>,
                                    ByteDots<1, 1, Corrections::whole>>;

    static void unpack(const uint8_t* lines, const uint8_t*, uint8_t* to) {
        for (int half = 0; half < 2; half++, lines += 32, to += 32) {
            store_256(to, _mm256_set1_epi16(1));
            for (int j = 0; j < 4; j++) {
                __m256i low, high;
                Pairs::split(load_256(lines + 64 * j), &low, &high);
                store_256(to + Dots::kLinesAt + 64 * j, low);
                store_256(to + Dots::kLinesAt + 256 + 64 * j, high);
            }
        }
    }
};
template <>
struct Unpacked<Format::q4> : UnpackedCodes<Q4Codes> {};
template <>
struct Unpacked<Format::mxfp4> : UnpackedCodes<Mxfp4Codes> {};
template <>
struct Unpacked<Format::nf4> : UnpackedCodes<Nf4Codes> {};
template <>
struct Unpacked<Format::ulaw4> : UnpackedCodes<Ulaw4Codes> {};

template <>
struct Unpacked<Format::q8> {
    using Dots = WordDots;
    static void unpack(const uint8_t* lines, const uint8_t*, uint8_t* to) {
        for (int at = 0; at < 8; at++)
            for (int half = 0; half < 2; half++) {
                const __m256i q = load_256(lines + 64 * at + 32 * half);
                const __m256i zero_point = _mm256_set1_epi16(128);
                store_256(to + 128 * at + 32 * half, _mm256_sub_epi16(DotQ8::even(q), zero_point));
                store_256(to + 128 * at + 64 + 32 * half,
                          _mm256_sub_epi16(DotQ8::odd(q), zero_point));
            }
    }
};

}  // namespace bw::BW_ISA_NAME
