// How the products of quantised formats take rows, so many at a time, and where the outputs go.
// What a panel is multiplied with how is the Panel's: kMostRows, and
// run<R, Units>(args, w, ahead, row, target), which does R rows of the panel at `w`; `ahead` as in
// ProductArgs. False where the sums did not fit; nothing is written then.
#pragma once
#include <type_traits>

#include "kernels/math.h"
#include "kernels/units.h"

namespace bw::BW_ISA_NAME {

// Rows whose activations stay in the second-level cache beside the panels.
constexpr int kRowBlock = 64;

struct Span {
    int from, to;
};

// Where a panel's outputs go.
struct Target {
    ProductArgs& args;
    int first_output;

    inline void put(int row, VecF acc) const {
        if (args.bias) acc = add(acc, load(args.bias + first_output));
        acc = stored(acc);
        float* y = args.y + at(row) + first_output;
        int left = args.outputs - first_output;
        if (left >= kPanel)
            store(y, acc);
        else
            store_first(y, acc, left);
    }
    template <int N, int P>
    BW_INLINE void put(int row, const NoUnits<N, P>& sums, int i) const {
        put(row, sums.sum[i]);
    }
    template <class Units>
    BW_INLINE void put(int row, const Units& sums, int i) const {
        if (!sums.put(i, args.grid + at(row) + first_output, args.add)) args.bad = true;
    }
    inline size_t at(int row) const {
        return args.places ? args.places[row] : static_cast<size_t>(row) * args.ldy;
    }
    inline const float* factors(int row) const {
        return args.factors ? args.factors + row : nullptr;
    }
};

// Where the parts of R rows of quantised activations lie, from a group on; the last row takes the
// places of those that there are not.
template <Format kFormat, int R>
struct BlockRows {
    static constexpr size_t kIntegers = activation_integers(kFormat);
    static constexpr size_t kSums = activation_sums(kFormat);
    const uint8_t* a[R];
    const float* scales[R];
    const int32_t* sums[R];

    BW_INLINE BlockRows(const ProductArgs& args, int row, int group = 0) {
        const auto groups = static_cast<size_t>(args.layout.groups());
        const auto from = static_cast<size_t>(group);
        for (int r = 0; r < R; r++) {
            const int at = row + r < args.rows ? row + r : args.rows - 1;
            a[r] = args.activations + static_cast<size_t>(at) * args.activation_stride;
            scales[r] = reinterpret_cast<const float*>(a[r] + groups * kIntegers);
            sums[r] = reinterpret_cast<const int32_t*>(scales[r] + groups) + from * kSums;
            a[r] += from * kIntegers;
            scales[r] += from;
        }
    }
    BW_INLINE void next_group() {
        for (int r = 0; r < R; r++) a[r] += kIntegers, scales[r]++, sums[r] += kSums;
    }
    // What a row's minima of a run of columns are multiplied by.
    BW_INLINE VecF weight(int r, int sub) const {
        float value;
        __builtin_memcpy(&value, sums[r] + sub, sizeof value);
        return set1(value);
    }
};

// A super-block's integer minima, of its run of columns `sub`.
BW_INLINE VecI integer_minima(const BlockShape& shape, const uint8_t* block, int sub) {
    if (shape.scales == BlockScales::nibbles)
        return shift_right_4(load_bytes(block + shape.scales_at() + kPanel * sub));
    return load_bytes(block + shape.minima_at() + kPanel * sub);
}

// Does R rows at a time, from `row` on; on the grid in int64 lanes where int32 lanes won't do.
template <class Panel, int R, bool kOnGrid>
inline void some_rows(const ProductArgs& args, const uint8_t* w, int& row, Span rows,
                      Target target) {
    for (; row + R <= rows.to; row += R) {
        // The first rows bring what is ahead into the caches, the others find it there.
        const size_t ahead = row == rows.from ? args.ahead : 0;
        if constexpr (!kOnGrid) {
            Panel::template run<R, NoUnits<R>>(args, w, ahead, row, target);
        } else if (args.layout.units() > NarrowUnits<R>::kMostUnits ||
                   !Panel::template run<R, NarrowUnits<R>>(args, w, ahead, row, target)) {
            for (int r = row; r < row + R; r++)
                Panel::template run<1, WideUnits<1>>(args, w, 0, r, target);
        }
    }
}

// All panels with rows `first` and up of a block of rows.
template <class Panel, bool kOnGrid>
inline void all_panels(ProductArgs& args, Span rows, int first) {
    const uint8_t* w = args.panels;
    for (int panel = 0; panel < args.num_panels; panel++, w += args.panel_stride) {
        Target target{args, panel * kPanel};
        int row = first;
        if constexpr (Panel::kMostRows >= 8)
            some_rows<Panel, 8, kOnGrid>(args, w, row, rows, target);
        if constexpr (Panel::kMostRows >= 4)
            some_rows<Panel, 4, kOnGrid>(args, w, row, rows, target);
        if constexpr (Panel::kMostRows >= 2)
            some_rows<Panel, 2, kOnGrid>(args, w, row, rows, target);
        some_rows<Panel, 1, kOnGrid>(args, w, row, rows, target);
    }
}

// Does what it can of the rows in Block's tiles, with all panels; Panel does what doesn't fit
// there. The first row that is left.
template <class Block, class Panel, bool kOnGrid>
int tiled_rows(ProductArgs& args, Span rows) {
    constexpr int kRows = Block::kTileRows;
    const int tiles = (rows.to - rows.from + kRows - Block::kLeastRows) / kRows;
    if (tiles == 0 || (kOnGrid && args.layout.units() > NarrowUnits<kRows>::kMostUnits))
        return rows.from;
    const int end = rows.from + tiles * kRows < rows.to ? rows.from + tiles * kRows : rows.to;
    Block block;
    for (int panel = 0; panel < args.num_panels; panel += Block::kMostPanels) {
        const uint8_t* w = args.panels + static_cast<size_t>(panel) * args.panel_stride;
        const int left = args.num_panels - panel;
        const int panels = left < Block::kMostPanels ? left : Block::kMostPanels;
        block.run(args, w, panels, args.ahead, rows.from, tiles,
                  Target{args, 0}.factors(rows.from));
        for (int p = 0; p < panels; p++) {
            const Target target{args, (panel + p) * kPanel};
            for (int row = rows.from; row < end; row++) {
                const int i = row - rows.from;
                const auto& total = block.total(p, i / kRows);
                if (total.fits())
                    target.put(row, total, i % kRows);
                else
                    Panel::template run<1, WideUnits<1>>(
                        args, w + static_cast<size_t>(p) * args.panel_stride, 0, row, target);
            }
        }
    }
    return end;
}
template <bool kOnGrid, int kRows>
using TileUnits = std::conditional_t<kOnGrid, NarrowUnits<kRows>, NoUnits<kRows>>;

// Row `from` and those after it, as many as a block has.
inline Span block_of_rows(const ProductArgs& args, int from) {
    return {from, from + kRowBlock < args.rows ? from + kRowBlock : args.rows};
}

}  // namespace bw::BW_ISA_NAME
