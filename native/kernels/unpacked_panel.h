// Products of four rows and more with weights that are unpacked once for all of them: the orders of
// docs/numerics.md, sections 4 and 16, for every row and output, as in product.cpp and
// block_panel.h. Unpacked<kFormat> and its dots are the ISA variant's.
#pragma once
#include "kernels/dot/avx2_unpacked.h"
#include "kernels/row_blocks.h"

namespace bw::BW_ISA_NAME {

// A panel with up to 64 rows, 256 columns at a time.
template <Format kFormat, class Units>
class UnpackedPanel {
  public:
    static constexpr int kTileRows = kRowsUnpacked;
    static constexpr int kLeastRows = kTileRows - 1;
    static constexpr int kMostTiles = kRowBlock / kTileRows;
    static constexpr int kMostPanels = 2;

    // As TiledBlock's (tiles.h).
    void run(const ProductArgs& args, const uint8_t* w, int panels, size_t ahead, int row,
             int tiles, const float* factors) {
        const int groups = args.layout.groups();
        unit_groups_ = args.layout.units() > 0 ? args.layout.unit_groups(0) : 1;
        for (int t = 0; t < tiles; t++) {
            float own[kTileRows];
            for (int r = 0; r < kTileRows; r++) {
                const int at = kTileRows * t + r;
                own[r] = factors && row + at < args.rows ? factors[at] : 1.0f;
            }
            for (int p = 0; p < panels; p++) {
                total_[p][t].start(own);
                for (int r = 0; r < kTileRows; r++) acc_[p][t][r] = zero();
            }
        }
        for (int from = 0; from < groups; from += kMost) {
            const int count = groups - from < kMost ? groups - from : kMost;
            for (int i = 0; i < count; i += kGroups, w += block_bytes(kFormat))
                for (int p = 0; p < panels; p++)
                    unpack(w + static_cast<size_t>(p) * args.panel_stride, ahead, weights_[p], i);
            // What the first panel brings of the activations the other finds in the first-level
            // cache.
            for (int t = 0; t < tiles; t++) {
                const BlockRows<kFormat, kTileRows> rows(args, row + kTileRows * t, from);
                for (int p = 0; p < panels; p++) {
                    const Chunk& weights = weights_[p];
                    VecI dots[kMost][kTileRows];
                    Dots::dots(weights.lines, count, rows.a, rows.sums, dots[0]);
                    VecF* acc = acc_[p][t];
                    if constexpr (kGroups == 1)
                        add_groups(weights, rows, dots, from, count, groups, acc, total_[p][t]);
                    else
                        add_super_block(weights, rows, dots, acc);
                    if (kGroups > 1 && ends_unit(from + count, groups)) total_[p][t].end_unit(acc);
                }
            }
        }
        for (int p = 0; p < panels; p++)
            for (int t = 0; t < tiles; t++) total_[p][t].end(acc_[p][t]);
    }

    const Units& total(int panel, int tile) const { return total_[panel][tile]; }

  private:
    using Weights = Unpacked<kFormat>;
    using Dots = typename Weights::Dots;
    static constexpr int kMost = 8;  // groups unpacked together
    static constexpr int kGroups = block_groups(kFormat);
    static constexpr bool kBlocks = keeps_blocks(kFormat);
    static constexpr BlockShape kShape = block_shape(kFormat);
    static constexpr bool kMinima = kBlocks && kShape.minima;
    static constexpr int kSubs = kBlocks ? kShape.group_subs() : 1;
    static constexpr size_t kLinesAt = kBlocks ? kShape.lines_at() : scale_bytes(kFormat);
    static constexpr size_t kGroupBytes = kBlocks ? kShape.group_bytes() : 0;  // there is but one

    struct Chunk {
        alignas(64) uint8_t lines[Dots::kBytes * kMost];
        VecF scale[kMost], minimum[kMost], minima[kMost * kSubs];
    };

    bool ends_unit(int group, int groups) const {
        return group == groups || group % unit_groups_ == 0;
    }

    // A block, into the places of group `at` and those after it.
    static void unpack(const uint8_t* w, size_t ahead, Chunk& to, int at) {
        if (ahead > 0) fetch<block_bytes(kFormat)>(w + ahead);
        const uint8_t *lines = w + kLinesAt, *scales = w + kShape.scales_at();
        if constexpr (scale_bytes(kFormat) == kPanel)
            to.scale[at] = load_exponents(w);
        else
            to.scale[at] = load_half(reinterpret_cast<const uint16_t*>(w));
        if constexpr (kMinima) {
            const VecF m = load_half(reinterpret_cast<const uint16_t*>(w + 2 * kPanel));
            to.minimum[at] = kGroups == 1 ? m : neg(m);
        }
        for (int i = 0; i < kGroups; i++)
            Weights::unpack(lines + kGroupBytes * static_cast<size_t>(i),
                            scales + kPanel * kSubs * i,
                            to.lines + Dots::kBytes * static_cast<size_t>(at + i));
        if constexpr (kMinima && kGroups > 1)
            for (int i = 0; i < kGroups * kSubs; i++)
                to.minima[i] = to_float(integer_minima(kShape, w, i));
    }

    using Rows = BlockRows<kFormat, kTileRows>;
    using GroupDots = const VecI (*)[kTileRows];

    inline void add_groups(const Chunk& weights, const Rows& rows, GroupDots dots, int from,
                           int count, int groups, VecF* to, Units& total) {
        VecF acc[kTileRows];
        for (int r = 0; r < kTileRows; r++) acc[r] = to[r];
        for (int i = 0; i < count; i++) {
            for (int r = 0; r < kTileRows; r++)
                acc[r] = fma(to_float(dots[i][r]), mul(weights.scale[i], set1(rows.scales[r][i])),
                             acc[r]);
            if constexpr (kMinima)
                for (int r = 0; r < kTileRows; r++)
                    acc[r] = fma(weights.minimum[i], rows.weight(r, i), acc[r]);
            if (ends_unit(from + i + 1, groups)) total.end_unit(acc);
        }
        for (int r = 0; r < kTileRows; r++) to[r] = acc[r];
    }

    static inline void add_super_block(const Chunk& weights, const Rows& rows, GroupDots dots,
                                       VecF* acc) {
        VecF sums[kTileRows];
        for (int r = 0; r < kTileRows; r++) sums[r] = zero();
        for (int i = 0; i < kGroups; i++)
            for (int r = 0; r < kTileRows; r++)
                sums[r] = fma(to_float(dots[i][r]), set1(rows.scales[r][i]), sums[r]);
        for (int r = 0; r < kTileRows; r++) acc[r] = fma(weights.scale[0], sums[r], acc[r]);
        if constexpr (kMinima) {
            for (int r = 0; r < kTileRows; r++) sums[r] = zero();
            for (int i = 0; i < kGroups * kSubs; i++)
                for (int r = 0; r < kTileRows; r++)
                    sums[r] = fma(weights.minima[i], rows.weight(r, i), sums[r]);
            for (int r = 0; r < kTileRows; r++) acc[r] = fma(weights.minimum[0], sums[r], acc[r]);
        }
    }

    Chunk weights_[kMostPanels];
    VecF acc_[kMostPanels][kMostTiles][kTileRows];
    Units total_[kMostPanels][kMostTiles];
    int unit_groups_ = 1;
};

}  // namespace bw::BW_ISA_NAME
