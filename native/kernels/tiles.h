// Products of 16 rows and more, on processors with matrix tiles (dot/amx.h): the order of
// docs/numerics.md section 4 for every row and output, as in product.cpp.
#pragma once
#include "kernels/dot.h"
#include "kernels/units.h"

namespace bw::BW_ISA_NAME {

// Up to 64 rows with up to 2 panels, some groups at a time: their weights are unpacked once for all
// rows, and what the first panel brings of the activations the others find in the first-level
// cache.
template <class Dot, class Units>
class TiledBlock {
  public:
    static constexpr int kMostTiles = 4;   // of 16 rows
    static constexpr int kMostPanels = 2;  // `panel_stride` from one to the next

    // Rows `row` up to `row + 16 * tiles` with the panels from `w` on; `ahead` as in ProductArgs.
    void run(const ProductArgs& args, const uint8_t* w, int panels, size_t ahead, int row,
             int tiles) {
        groups_ = args.layout.groups();
        unit_groups_ = args.layout.units() > 0 ? args.layout.unit_groups(0) : 1;
        stride_ = args.activation_stride;
        const uint8_t* rows = args.activations + static_cast<size_t>(row) * stride_;
        for (int p = 0; p < panels; p++)
            for (int t = 0; t < tiles; t++) {
                total_[p][t].start();
                for (int r = 0; r < kTileRows; r++) acc_[p][t][r] = zero();
            }
        for (int from = 0; from < groups_; from += kChunk) {
            const int count = groups_ - from < kChunk ? groups_ - from : kChunk;
            for (int p = 0; p < panels; p++)
                unpack(w + static_cast<size_t>(p) * args.panel_stride +
                           static_cast<size_t>(from) * Dot::kBlock,
                       ahead, count, p);
            finish_stores();
            for (int t = 0; t < tiles; t++)
                for (int p = 0; p < panels; p++)
                    chunk(rows + static_cast<size_t>(kTileRows * t) * stride_, from, count, p, t);
        }
        for (int p = 0; p < panels; p++)
            for (int t = 0; t < tiles; t++) total_[p][t].end(acc_[p][t]);
    }

    const Units& total(int panel, int tile) const { return total_[panel][tile]; }

  private:
    static constexpr int kChunk = 16;  // groups
    static constexpr int kGroups = Tiles<Dot>::kGroups;

    inline void unpack(const uint8_t* w, size_t ahead, int count, int p) {
        for (int i = 0; i < count; i++, w += Dot::kBlock) {
            for (size_t line = 0; ahead > 0 && line < Dot::kBlock; line += 64)
                __builtin_prefetch(w + ahead + line);
            Tiles<Dot>::unpack(w, lines_[p][i]);
            scale_[p][i] = load_half(reinterpret_cast<const uint16_t*>(w));
        }
    }

    // Groups `from` up to `from + count` of a panel with a tile of rows. Where kGroups does not
    // divide `count`, the last dots are also of old lines with what lies behind the rows' integers,
    // and nobody looks at those.
    inline void chunk(const uint8_t* rows, int from, int count, int p, int t) {
        const uint8_t* a = rows + static_cast<size_t>(from) * 64;
        const uint8_t* scales =
            rows + static_cast<size_t>(groups_) * 64 + sizeof(float) * static_cast<size_t>(from);
        VecF acc[kTileRows];
        for (int r = 0; r < kTileRows; r++) acc[r] = acc_[p][t][r];
        // The next dots are made before the last are added up, so that both go on together.
        alignas(64) int32_t sums[2][kTileSums];
        const auto add_up = [&](int i, int32_t* dots) __attribute__((always_inline)) {
            for (int g = 0; g < kGroups && i + g < count; g++) {
                const uint8_t* scale = scales + sizeof(float) * static_cast<size_t>(i + g);
                for (int r = 0; r < kTileRows; r++, scale += stride_) {
                    float of_row;
                    __builtin_memcpy(&of_row, scale, sizeof of_row);
                    acc[r] = fma(to_float(Tiles<Dot>::dot(dots, g, r)),
                                 mul(scale_[p][i + g], set1(of_row)), acc[r]);
                }
                const int next = from + i + g + 1;
                if (next % unit_groups_ == 0 || next == groups_) total_[p][t].end_unit(acc);
            }
        };
        Tiles<Dot>::template make<0>(lines_[p][0], a, stride_);
        for (int i = 0; i < count; i += 2 * kGroups) {
            const int second = i + kGroups, third = i + 2 * kGroups;
            if (second < count)
                Tiles<Dot>::template make<1>(lines_[p][second], a + 64 * second, stride_);
            store_dots<0>(sums[0]);
            add_up(i, sums[0]);
            if (second >= count) break;
            if (third < count)
                Tiles<Dot>::template make<0>(lines_[p][third], a + 64 * third, stride_);
            store_dots<1>(sums[1]);
            add_up(second, sums[1]);
        }
        for (int r = 0; r < kTileRows; r++) acc_[p][t][r] = acc[r];
    }

    alignas(64) uint8_t lines_[kMostPanels][kChunk][kTileLines];
    VecF scale_[kMostPanels][kChunk];
    VecF acc_[kMostPanels][kMostTiles][kTileRows];
    Units total_[kMostPanels][kMostTiles];
    size_t stride_ = 0;
    int groups_ = 0, unit_groups_ = 1;
};

}  // namespace bw::BW_ISA_NAME
