// Products of 16 rows and more with one panel, on processors with matrix tiles (dot/amx.h): the
// order of docs/numerics.md section 4 for every row, as in product.cpp.
#pragma once
#include "kernels/dot.h"
#include "kernels/units.h"

namespace bw::BW_ISA_NAME {

// Up to kMostTiles times 16 rows with one panel. A chunk of the weights is unpacked once for all of
// them and stays in the first-level cache.
template <class Dot, class Units>
class TiledPanel {
  public:
    static constexpr int kMostTiles = 4;

    // The products of rows `row` up to `row + 16 * tiles`; `ahead` as in ProductArgs.
    void run(const ProductArgs& args, const uint8_t* w, size_t ahead, int row, int tiles) {
        const int groups = args.layout.groups();
        unit_groups_ = args.layout.units() > 0 ? args.layout.unit_groups(0) : 1;
        for (int t = 0; t < tiles; t++) {
            total_[t].start();
            for (int r = 0; r < kTileRows; r++) acc_[t][r] = zero();
        }
        const uint8_t* rows = args.activations + static_cast<size_t>(row) * args.activation_stride;
        for (int from = 0; from < groups; from += kChunk) {
            const int count = groups - from < kChunk ? groups - from : kChunk;
            for (int i = 0; i < count; i++, w += Dot::kBlock) {
                for (size_t line = 0; ahead > 0 && line < Dot::kBlock; line += 64)
                    __builtin_prefetch(w + ahead + line);
                Tiles<Dot>::unpack(w, lines_ + kTileLines * static_cast<size_t>(i));
                scale_[i] = load_half(reinterpret_cast<const uint16_t*>(w));
            }
            finish_stores();
            for (int t = 0; t < tiles; t++)
                chunk(rows + static_cast<size_t>(kTileRows * t) * args.activation_stride,
                      args.activation_stride, from, count, groups, t);
        }
        for (int t = 0; t < tiles; t++) total_[t].end(acc_[t]);
    }

    const Units& total(int tile) const { return total_[tile]; }

  private:
    static constexpr int kChunk = 16;  // groups; an even number

    // Groups `from` up to `from + count` with the 16 rows of one tile.
    inline void chunk(const uint8_t* rows, size_t stride, int from, int count, int groups, int t) {
        VecF acc[kTileRows];
        for (int r = 0; r < kTileRows; r++) acc[r] = acc_[t][r];
        const uint8_t* scales = rows + static_cast<size_t>(groups) * 64;
        for (int i = 0; i < count; i += 2) {
            // Where the chunk is odd the second group's dots are of old lines, and are not looked
            // at; its activations are the scales behind the row's integers.
            alignas(64) int32_t sums[2 * Tiles<Dot>::kSums];
            Tiles<Dot>::dots(lines_ + kTileLines * static_cast<size_t>(i),
                             rows + static_cast<size_t>(from + i) * 64, stride, sums);
            for (int j = 0; j < 2 && i + j < count; j++) {
                const int group = from + i + j;
                const uint8_t* scale = scales + sizeof(float) * static_cast<size_t>(group);
                for (int r = 0; r < kTileRows; r++, scale += stride) {
                    float of_row;
                    __builtin_memcpy(&of_row, scale, sizeof of_row);
                    acc[r] = fma(to_float(Tiles<Dot>::dot(sums + j * Tiles<Dot>::kSums, r)),
                                 mul(scale_[i + j], set1(of_row)), acc[r]);
                }
                if ((group + 1) % unit_groups_ == 0 || group + 1 == groups) total_[t].end_unit(acc);
            }
        }
        for (int r = 0; r < kTileRows; r++) acc_[t][r] = acc[r];
    }

    alignas(64) uint8_t lines_[kTileLines * kChunk];
    VecF scale_[kChunk];
    VecF acc_[kMostTiles][kTileRows];
    Units total_[kMostTiles];
    int unit_groups_ = 1;
};

}  // namespace bw::BW_ISA_NAME
