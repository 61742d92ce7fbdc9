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
    static constexpr int kTileRows = bw::BW_ISA_NAME::kTileRows;
    static constexpr int kLeastRows = kTileRows;  // for which a tile is worth its while
    static constexpr int kMostTiles = 4;
    static constexpr int kMostPanels = 2;  // `panel_stride` from one to the next

    // Rows `row` up to `row + 16 * tiles` with the panels from `w` on; `ahead` as in
    // ProductArgs, `factors` those of the rows.
    void run(const ProductArgs& args, const uint8_t* w, int panels, size_t ahead, int row,
             int tiles, const float* factors) {
        groups_ = args.layout.groups();
        unit_groups_ = args.layout.units() > 0 ? args.layout.unit_groups(0) : 1;
        stride_ = args.activation_stride;
        const uint8_t* rows = args.activations + static_cast<size_t>(row) * stride_;
        for (int p = 0; p < panels; p++)
            for (int t = 0; t < tiles; t++) {
                total_[p][t].start(factors ? factors + kTileRows * t : nullptr);
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
    static constexpr int kChunk = 8;  // groups: more would crowd the first-level cache
    static constexpr int kTiles = Tiles<Dot>::kTiles;

    inline void unpack(const uint8_t* w, size_t ahead, int count, int p) {
        for (int i = 0; i < count; i++, w += Dot::kBlock) {
            if (ahead > 0) fetch<Dot::kBlock>(w + ahead);
            Tiles<Dot>::unpack(w, lines_[p][i]);
            scale_[p][i] = load_scales<Dot>(w);
        }
    }

    // Groups `from` up to `from + count` of a panel with a tile of rows. Three groups go on at a
    // time: the next one's dots are made, this one's on their way through the first-level cache,
    // and the last one's added up.
    inline void chunk(const uint8_t* rows, int from, int count, int p, int t) {
        const uint8_t* a = rows + static_cast<size_t>(from) * Dot::kIntegers;
        const uint8_t* scales = rows + static_cast<size_t>(groups_) * Dot::kIntegers +
                                sizeof(float) * static_cast<size_t>(from);
        VecF acc[kTileRows];
        for (int r = 0; r < kTileRows; r++) acc[r] = acc_[p][t][r];
        alignas(64) int32_t dots[2][kTiles * kTileSums];
        int left = unit_groups_ - from % unit_groups_;  // of the unit
        const auto even = [&](int i) __attribute__((always_inline)) {
            if (i < count)
                Tiles<Dot>::template make<0>(lines_[p][i], a + Dot::kIntegers * i, stride_);
        };
        const auto odd = [&](int i) __attribute__((always_inline)) {
            if (i < count)
                Tiles<Dot>::template make<1>(lines_[p][i], a + Dot::kIntegers * i, stride_);
        };
        const auto add_up = [&](int i, const int32_t* sums) __attribute__((always_inline)) {
            const uint8_t* scale = scales + sizeof(float) * static_cast<size_t>(i);
            for (int r = 0; r < kTileRows; r++, scale += stride_) {
                float of_row;
                __builtin_memcpy(&of_row, scale, sizeof of_row);
                acc[r] = fma(to_float(Tiles<Dot>::dot(sums, r)), mul(scale_[p][i], set1(of_row)),
                             acc[r]);
            }
            if (--left > 0 && from + i + 1 < groups_) return;
            total_[p][t].end_unit(acc);
            left = unit_groups_;
        };
        even(0);
        odd(1);
        Tiles<Dot>::template store<0>(dots[0]);
        for (int i = 0; i < count; i += 2) {
            even(i + 2);
            if (i + 1 < count) Tiles<Dot>::template store<1>(dots[1]);
            add_up(i, dots[0]);
            if (i + 1 >= count) break;
            odd(i + 3);
            if (i + 2 < count) Tiles<Dot>::template store<0>(dots[0]);
            add_up(i + 1, dots[1]);
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
