// Integer dots on AMX: 16 rows by a panel's 16 outputs, 32 k an instruction. Fewer rows take
// AVX-512's.
#pragma once
#include "kernels/dot/avx512.h"

namespace bw::BW_ISA_NAME {

constexpr int kTileRows = 16;
constexpr size_t kTileLines = 512;      // bytes of a group's weights as the 8 lines of a tile
constexpr int kTileSums = 2 * 16 * 16;  // int32 of two tiles of dots

// Compilers take the instructions below for ones that read no memory.
inline void finish_stores() { __asm__ volatile("" ::: "memory"); }

// The calling thread's tiles have their sizes for as long as this lives: 0 to 3 sums, 4 and 5
// activations, 6 and 7 weights.
class TileMode {
  public:
    TileMode() {
        struct {
            uint8_t palette = 1, start_row = 0, zero[14] = {};
            uint16_t row_bytes[16] = {};
            uint8_t rows[16] = {};
        } config;
        for (int i = 0; i < 8; i++) {
            config.row_bytes[i] = i == 4 || i == 5 ? 32 : 64;
            config.rows[i] = i < 6 ? kTileRows : 8;
        }
        finish_stores();
        _tile_loadconfig(&config);
    }
    ~TileMode() { _tile_release(); }
    TileMode(const TileMode&) = delete;
    TileMode& operator=(const TileMode&) = delete;
};

// Two tiles of dots, which stay in tiles 0 and 1 (kSet 0) or 2 and 3 (kSet 1): of the weights
// `w0` (lines of a tile) with the 16 rows, `stride` bytes apart, from `a0` on, and of `w1` and
// `a1`. Compilers want the tiles' numbers as literals, hence the text twice.
template <int kSet>
inline void make_dots(const uint8_t* w0, const uint8_t* a0, const uint8_t* w1, const uint8_t* a1,
                      size_t stride) {
    if constexpr (kSet == 0) {
        _tile_zero(0);
        _tile_loadd(6, w0, 64);
        _tile_loadd(4, a0, stride);
        _tile_dpbssd(0, 4, 6);
        _tile_zero(1);
        _tile_loadd(7, w1, 64);
        _tile_loadd(5, a1, stride);
        _tile_dpbssd(1, 5, 7);
    } else {
        _tile_zero(2);
        _tile_loadd(6, w0, 64);
        _tile_loadd(4, a0, stride);
        _tile_dpbssd(2, 4, 6);
        _tile_zero(3);
        _tile_loadd(7, w1, 64);
        _tile_loadd(5, a1, stride);
        _tile_dpbssd(3, 5, 7);
    }
}

// [tile][row][output].
template <int kSet>
inline void store_dots(int32_t* sums) {
    if constexpr (kSet == 0) {
        _tile_stored(0, sums, 64);
        _tile_stored(1, sums + 256, 64);
    } else {
        _tile_stored(2, sums, 64);
        _tile_stored(3, sums + 256, 64);
    }
}

// How a format uses two tiles of dots: `unpack` makes the lines of a tile, `make` the dots of
// kGroups groups, whose lines and activations lie one behind the other; `dot` finds those of one
// group and row.
template <class Dot>
struct Tiles;

template <>
struct Tiles<DotQ4> {
    static constexpr int kGroups = 2;
    template <int kSet>
    static inline void make(const uint8_t* lines, const uint8_t* a, size_t stride) {
        make_dots<kSet>(lines, a, lines + kTileLines, a + 64, stride);
    }
    static inline VecI dot(const int32_t* sums, int group, int row) {
        return {_mm512_load_si512(sums + 256 * group + 16 * row)};
    }
    static inline void unpack(const uint8_t* block, uint8_t* lines) {
        const __m512i mask = _mm512_set1_epi8(15), zero_point = _mm512_set1_epi8(8);
        for (int j = 0; j < 4; j++) {
            const __m512i q = _mm512_loadu_si512(block + kScaleBytes + 64 * j);
            const __m512i low = _mm512_and_si512(q, mask);
            const __m512i high = _mm512_and_si512(_mm512_srli_epi16(q, 4), mask);
            _mm512_store_si512(lines + 64 * j, _mm512_sub_epi8(low, zero_point));
            _mm512_store_si512(lines + 256 + 64 * j, _mm512_sub_epi8(high, zero_point));
        }
    }
};

template <>
struct Tiles<DotQ8> {
    static constexpr int kGroups = 1;  // of two byte planes
    template <int kSet>
    static inline void make(const uint8_t* lines, const uint8_t* a, size_t stride) {
        make_dots<kSet>(lines, a, lines, a + 32, stride);
    }
    static inline void unpack(const uint8_t* block, uint8_t* lines) {
        const __m512i sign = _mm512_set1_epi8(-128);
        for (int j = 0; j < 8; j++) {
            const __m512i q = _mm512_loadu_si512(block + kScaleBytes + 64 * j);
            _mm512_store_si512(lines + 64 * j, _mm512_xor_si512(q, sign));
        }
    }
    static inline VecI dot(const int32_t* sums, int, int row) {
        const __m512i high = _mm512_load_si512(sums + 16 * row);
        const __m512i low = _mm512_load_si512(sums + 256 + 16 * row);
        return {_mm512_add_epi32(_mm512_slli_epi32(high, 8), low)};
    }
};

}  // namespace bw::BW_ISA_NAME
