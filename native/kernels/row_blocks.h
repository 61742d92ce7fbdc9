// How the products of quantised formats take rows, so many at a time, and where the outputs go.
// What a panel is multiplied with how is the Panel's: kMostRows, and
// run<R, Units>(args, w, ahead, row, target), which does R rows of the panel at `w`; `ahead` as in
// ProductArgs. False where the sums did not fit; nothing is written then.
#pragma once
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
        if constexpr (Panel::kMostRows >= 4) {
            some_rows<Panel, 4, kOnGrid>(args, w, row, rows, target);
            some_rows<Panel, 2, kOnGrid>(args, w, row, rows, target);
        }
        some_rows<Panel, 1, kOnGrid>(args, w, row, rows, target);
    }
}

// Row `from` and those after it, as many as a block has.
inline Span block_of_rows(const ProductArgs& args, int from) {
    return {from, from + kRowBlock < args.rows ? from + kRowBlock : args.rows};
}

}  // namespace bw::BW_ISA_NAME
