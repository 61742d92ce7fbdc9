// Integer dots on AMX: 16 rows by a panel's 16 outputs, 32 k an instruction. Fewer rows take
// AVX-512's.
#pragma once
#include "kernels/dot/avx512.h"

namespace bw::BW_ISA_NAME {

constexpr int kTileRows = 16;
constexpr size_t kTileLines = 512;  // bytes of a group's weights as the 8 lines of a tile
constexpr int kTileSums = 16 * 16;  // int32 of a tile of dots

// Compilers take the instructions below for ones that read no memory.
inline void finish_stores() { __asm__ volatile("" ::: "memory"); }

// The calling thread's tiles have their sizes for as long as this lives: 0 to 3 dots, 4 and 5
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

// How a format makes the dots of one group with 16 rows. `unpack` makes the lines of a tile of a
// block; `make` the dots with the rows' integers from `a` on, `stride` bytes from row to row, in
// tiles of their own for kSet 0 and 1; `store` writes a set's tiles to `dots`, kTiles times
// kTileSums, and `dot` finds a row's there. Compilers want the tiles' numbers as literals, hence
// everything twice.
template <class Dot>
struct Tiles;

template <class Codes>
struct Tiles<DotCodes<Codes>> {
    static constexpr int kTiles = 1;
    static inline void unpack(const uint8_t* block, uint8_t* lines) {
        const __m512i zero_point = _mm512_set1_epi8(Codes::kZeroPoint);
        __m512i low[4], high[4];
        DotCodes<Codes>::split(block, low, high);
        for (int j = 0; j < 4; j++) {
            _mm512_store_si512(lines + 64 * j, _mm512_sub_epi8(low[j], zero_point));
            _mm512_store_si512(lines + 256 + 64 * j, _mm512_sub_epi8(high[j], zero_point));
        }
    }
    template <int kSet>
    static inline void make(const uint8_t* lines, const uint8_t* a, size_t stride) {
        if constexpr (kSet == 0) {
            _tile_zero(0);
            _tile_loadd(6, lines, 64);
            _tile_loadd(4, a, stride);
            _tile_dpbssd(0, 4, 6);
        } else {
            _tile_zero(1);
            _tile_loadd(7, lines, 64);
            _tile_loadd(5, a, stride);
            _tile_dpbssd(1, 5, 7);
        }
    }
    template <int kSet>
    static inline void store(int32_t* dots) {
        if constexpr (kSet == 0)
            _tile_stored(0, dots, 64);
        else
            _tile_stored(1, dots, 64);
    }
    static inline VecI dot(const int32_t* dots, int row) {
        return {_mm512_load_si512(dots + 16 * row)};
    }
};

template <>
struct Tiles<DotQ8> {
    static constexpr int kTiles = 2;  // of high bytes, of low ones
    static inline void unpack(const uint8_t* block, uint8_t* lines) {
        const __m512i sign = _mm512_set1_epi8(-128);
        for (int j = 0; j < 8; j++) {
            const __m512i q = _mm512_loadu_si512(block + DotQ8::kScaleBytes + 64 * j);
            _mm512_store_si512(lines + 64 * j, _mm512_xor_si512(q, sign));
        }
    }
    template <int kSet>
    static inline void make(const uint8_t* lines, const uint8_t* a, size_t stride) {
        if constexpr (kSet == 0) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_loadd(6, lines, 64);
            _tile_loadd(4, a, stride);
            _tile_loadd(5, a + 32, stride);
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 5, 6);
        } else {
            _tile_zero(2);
            _tile_zero(3);
            _tile_loadd(7, lines, 64);
            _tile_loadd(4, a, stride);
            _tile_loadd(5, a + 32, stride);
            _tile_dpbssd(2, 4, 7);
            _tile_dpbssd(3, 5, 7);
        }
    }
    template <int kSet>
    static inline void store(int32_t* dots) {
        if constexpr (kSet == 0) {
            _tile_stored(0, dots, 64);
            _tile_stored(1, dots + kTileSums, 64);
        } else {
            _tile_stored(2, dots, 64);
            _tile_stored(3, dots + kTileSums, 64);
        }
    }
    static inline VecI dot(const int32_t* dots, int row) {
        const __m512i high = _mm512_load_si512(dots + 16 * row);
        const __m512i low = _mm512_load_si512(dots + kTileSums + 16 * row);
        return {_mm512_add_epi32(_mm512_slli_epi32(high, 8), low)};
    }
};

}  // namespace bw::BW_ISA_NAME
