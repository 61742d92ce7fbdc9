// Products of packed weight panels with rows, in the order of docs/numerics.md section 4.
// One text for every ISA variant; integer dots come from dot.h.
#include <optional>
#include <type_traits>

#include "kernels/dot.h"
#include "kernels/math.h"
#include "kernels/row_blocks.h"
#include "kernels/variant.h"
#if defined(BW_ISA_AMX)
#include "kernels/tiles.h"
#elif defined(BW_UNPACKS)
#include "kernels/unpacked_panel.h"
#endif

namespace bw::BW_ISA_NAME {
namespace {

// Groups of integers with a scale. A group's weights are unpacked once for all rows.
template <class Dot>
struct QuantisedPanel {
    static constexpr int kMostRows = Dot::kMostRows;
    template <int R, class Units>
    static inline bool run(const ProductArgs& args, const uint8_t* w, size_t ahead, int row,
                           Target target) {
        const int groups = args.layout.groups(), units = args.layout.units();
        const uint8_t* a[R];
        const float* scales[R];
        const int32_t* sums[R];
        for (int r = 0; r < R; r++) {
            a[r] = args.activations + static_cast<size_t>(row + r) * args.activation_stride;
            scales[r] =
                reinterpret_cast<const float*>(a[r] + static_cast<size_t>(groups) * Dot::kIntegers);
            sums[r] = reinterpret_cast<const int32_t*>(scales[r] + groups);
        }
        VecF acc[R];
        Units total;
        total.start(target.factors(row));
        for (int r = 0; r < R; r++) acc[r] = zero();
        int group = 0;
        for (int u = 0; u < units; u++) {
            for (const int end = group + args.layout.unit_groups(u); group < end; group++) {
                if (ahead > 0) fetch<Dot::kBlock>(w + ahead);
                VecI dot[R];
                int32_t sum[R];
                const uint8_t* at[R];
                for (int r = 0; r < R; r++) {
                    sum[r] = sums[r][group];
                    at[r] = a[r] + static_cast<size_t>(group) * Dot::kIntegers;
                }
                Dot::template group<R>(w, at, sum, dot);
                VecF scale = load_scales<Dot>(w);
                for (int r = 0; r < R; r++)
                    acc[r] = fma(to_float(dot[r]), mul(scale, set1(scales[r][group])), acc[r]);
                w += Dot::kBlock;
            }
            total.end_unit(acc);
        }
        total.end(acc);
        if (!total.fits()) return false;
        for (int r = 0; r < R; r++) target.put(row + r, total, r);
        return true;
    }
};

template <class Dot, bool kOnGrid>
void quantised(ProductArgs& args) {
#if defined(BW_ISA_AMX)
    using Block = TiledBlock<Dot, TileUnits<kOnGrid, kTileRows>>;
    std::optional<TileMode> mode;
    if (args.rows >= kTileRows) mode.emplace();
#elif defined(BW_UNPACKS)
    using Block = UnpackedPanel<Dot::kFormat, TileUnits<kOnGrid, kRowsUnpacked>>;
#endif
    for (int from = 0; from < args.rows; from += kRowBlock) {
        const Span rows = block_of_rows(args, from);
        int first = from;
#if defined(BW_ISA_AMX) || defined(BW_UNPACKS)
        first = tiled_rows<Block, QuantisedPanel<Dot>, kOnGrid>(args, rows);
#endif
        if (first < rows.to) all_panels<QuantisedPanel<Dot>, kOnGrid>(args, rows, first);
    }
}

inline VecF load_weight(const float* p) { return load(p); }
inline VecF load_weight(const uint16_t* p) { return load_bf16(p); }

// Float formats: P panels of R rows at a time, so that R * P chains hide the fma's latency.
template <typename T, int R, int P, class Units>
inline bool float_panels(ProductArgs& args, int panel, int row) {
    const T* w[P];
    for (int p = 0; p < P; p++)
        w[p] = reinterpret_cast<const T*>(args.panels +
                                          static_cast<size_t>(panel + p) * args.panel_stride);
    VecF acc[R * P];
    Units total;
    total.start(Target{args, 0}.factors(row));
    for (int i = 0; i < R * P; i++) acc[i] = zero();
    const float* x = args.x + static_cast<size_t>(row) * args.ldx;
    const size_t ahead = row == 0 ? args.ahead : 0;
    constexpr int kLine = 64 / (kPanel * sizeof(T));  // k of a line of weights
    int k = 0;
    for (int u = 0; u < args.layout.units(); u++) {
        for (const int end = k + args.layout.unit_size(u); k < end; k++) {
            for (int p = 0; p < P; p++) {
                if (ahead > 0 && k % kLine == 0)
                    fetch<64>(reinterpret_cast<const uint8_t*>(w[p] + size_t{kPanel} * k) + ahead);
                VecF weight = load_weight(w[p] + static_cast<size_t>(k) * kPanel);
                for (int r = 0; r < R; r++)
                    acc[r * P + p] = fma(weight, set1(x[r * args.ldx + k]), acc[r * P + p]);
            }
        }
        total.end_unit(acc);
    }
    total.end(acc);
    if (!total.fits()) return false;
    for (int p = 0; p < P; p++)
        for (int r = 0; r < R; r++)
            Target{args, (panel + p) * kPanel}.put(row + r, total, r * P + p);
    return true;
}

template <typename T, int R, int P, bool kOnGrid>
inline void float_rows(ProductArgs& args, int panel, int& row) {
    for (; row + R <= args.rows; row += R) {
        if constexpr (!kOnGrid) {
            float_panels<T, R, P, NoUnits<R * P, P>>(args, panel, row);
        } else if (args.layout.units() > NarrowUnits<1>::kMostUnits ||
                   !float_panels<T, R, P, NarrowUnits<R * P, P>>(args, panel, row)) {
            for (int r = row; r < row + R; r++)
                for (int p = panel; p < panel + P; p++)
                    float_panels<T, 1, 1, WideUnits<1>>(args, p, r);
        }
    }
}

template <typename T, int P, bool kOnGrid>
inline void float_all_rows(ProductArgs& args, int panel) {
    int row = 0;
    float_rows<T, 4, P, kOnGrid>(args, panel, row);
    float_rows<T, 2, P, kOnGrid>(args, panel, row);
    float_rows<T, 1, P, kOnGrid>(args, panel, row);
}

template <typename T, bool kOnGrid>
void floating(ProductArgs& args) {
    int panel = 0;
    for (; panel + 4 <= args.num_panels; panel += 4) float_all_rows<T, 4, kOnGrid>(args, panel);
    for (; panel < args.num_panels; panel++) float_all_rows<T, 1, kOnGrid>(args, panel);
}

}  // namespace

void linear_f32(ProductArgs& args) { floating<float, false>(args); }
void linear_bf16(ProductArgs& args) { floating<uint16_t, false>(args); }
void linear_q8(ProductArgs& args) { quantised<DotQ8, false>(args); }
void linear_q4(ProductArgs& args) { quantised<DotQ4, false>(args); }
void linear_mxfp4(ProductArgs& args) { quantised<DotMxfp4, false>(args); }
void linear_nf4(ProductArgs& args) { quantised<DotNf4, false>(args); }
void linear_ulaw4(ProductArgs& args) { quantised<DotUlaw4, false>(args); }
void linear_grid_f32(ProductArgs& args) { floating<float, true>(args); }
void linear_grid_bf16(ProductArgs& args) { floating<uint16_t, true>(args); }
void linear_grid_q8(ProductArgs& args) { quantised<DotQ8, true>(args); }
void linear_grid_q4(ProductArgs& args) { quantised<DotQ4, true>(args); }
void linear_grid_mxfp4(ProductArgs& args) { quantised<DotMxfp4, true>(args); }
void linear_grid_nf4(ProductArgs& args) { quantised<DotNf4, true>(args); }
void linear_grid_ulaw4(ProductArgs& args) { quantised<DotUlaw4, true>(args); }

}  // namespace bw::BW_ISA_NAME
