// Products of panels that keep GGUF's blocks: docs/numerics.md, section 16. Integers come from
// dot_blocks.h.
#pragma once
#include "kernels/dot_blocks.h"
#include "kernels/row_blocks.h"
#if defined(BW_UNPACKS)
#include "kernels/unpacked_panel.h"
#endif

namespace bw::BW_ISA_NAME {

template <Format kFormat>
struct BlockPanel {
    using Dot = DotBlock<kFormat>;
    static constexpr BlockShape kShape = block_shape(kFormat);
    static constexpr int kMostRows = Dot::kMostRows;

    template <int R, class Units>
    static inline bool run(const ProductArgs& args, const uint8_t* w, size_t ahead, int row,
                           Target target) {
        BlockRows<kFormat, R> rows(args, row);
        VecF acc[R];
        Units total;
        total.start(target.factors(row));
        for (int r = 0; r < R; r++) acc[r] = zero();
        const int units = args.layout.units();
        for (int u = 0; u < units; u++) {
            for (int left = args.layout.unit_size(u); left > 0; left -= kShape.columns) {
                if (kShape.groups() == 1)
                    add_block<R>(w, ahead, rows, acc);
                else
                    add_super_block<R>(w, ahead, rows, acc);
                w += kShape.bytes();
            }
            total.end_unit(acc);
        }
        total.end(acc);
        if (!total.fits()) return false;
        for (int r = 0; r < R; r++) target.put(row + r, total, r);
        return true;
    }

  private:
    template <int R>
    static BW_INLINE void add_block(const uint8_t* w, size_t ahead, BlockRows<kFormat, R>& rows,
                                    VecF* acc) {
        if (ahead > 0) fetch<kShape.bytes()>(w + ahead);
        VecI dot[R];
        Dot::template group<R>(w + kShape.lines_at(), nullptr, rows.a, rows.sums, dot);
        const VecF d = halves(w);
        for (int r = 0; r < R; r++)
            acc[r] = fma(to_float(dot[r]), mul(d, set1(*rows.scales[r])), acc[r]);
        if constexpr (kShape.minima) {
            const VecF m = halves(w + 2 * kPanel);
            for (int r = 0; r < R; r++) acc[r] = fma(m, rows.weight(r, 0), acc[r]);
        }
        rows.next_group();
    }
    template <int R>
    static BW_INLINE void add_super_block(const uint8_t* w, size_t ahead,
                                          BlockRows<kFormat, R>& rows, VecF* acc) {
        constexpr int kSubs = kShape.group_subs();
        const uint8_t *scales = w + kShape.scales_at(), *lines = w + kShape.lines_at();
        if (ahead > 0) fetch<kShape.lines_at()>(w + ahead);
        VecF first[R], second[R];
        for (int r = 0; r < R; r++) first[r] = second[r] = zero();
        for (int group = 0; group < kShape.groups(); group++) {
            if (ahead > 0) fetch<kShape.group_bytes()>(lines + ahead);
            VecI dot[R];
            Dot::template group<R>(lines, scales, rows.a, rows.sums, dot);
            for (int r = 0; r < R; r++)
                first[r] = fma(to_float(dot[r]), set1(*rows.scales[r]), first[r]);
            if constexpr (kShape.minima) {
                for (int sub = 0; sub < kSubs; sub++) {
                    const VecF minimum = to_float(integer_minima(kShape, w, kSubs * group + sub));
                    for (int r = 0; r < R; r++)
                        second[r] = fma(minimum, rows.weight(r, sub), second[r]);
                }
            }
            lines += kShape.group_bytes();
            scales += kPanel * kSubs;
            rows.next_group();
        }
        const VecF d = halves(w);
        for (int r = 0; r < R; r++) acc[r] = fma(d, first[r], acc[r]);
        if constexpr (kShape.minima) {
            const VecF m = neg(halves(w + 2 * kPanel));
            for (int r = 0; r < R; r++) acc[r] = fma(m, second[r], acc[r]);
        }
    }
    static BW_INLINE VecF halves(const uint8_t* w) {
        return load_half(reinterpret_cast<const uint16_t*>(w));
    }
};

template <Format kFormat, bool kOnGrid>
void block_product(ProductArgs& args) {
    for (int from = 0; from < args.rows; from += kRowBlock) {
        const Span rows = block_of_rows(args, from);
        int first = from;
#if defined(BW_UNPACKS)
        using Block = UnpackedPanel<kFormat, TileUnits<kOnGrid, kRowsUnpacked>>;
        first = tiled_rows<Block, BlockPanel<kFormat>, kOnGrid>(args, rows);
#endif
        if (first < rows.to) all_panels<BlockPanel<kFormat>, kOnGrid>(args, rows, first);
    }
}

#define BW_BLOCK_PRODUCT(format)                                                            \
    void linear_##format(ProductArgs& args) { block_product<Format::format, false>(args); } \
    void linear_grid_##format(ProductArgs& args) { block_product<Format::format, true>(args); }

}  // namespace bw::BW_ISA_NAME
