// Products of packed weight panels with rows, in the order of docs/numerics.md section 4.
// One text for every ISA variant; integer dots come from dot.h.
#include "kernels/dot.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {
namespace {

// Where a panel's outputs go.
struct Target {
    ProductArgs& args;
    int first_output;

    inline void put(int row, VecF acc) const {
        if (args.bias) acc = add(acc, load(args.bias + first_output));
        float* y = args.y + static_cast<size_t>(row) * args.ldy + first_output;
        int left = args.outputs - first_output;
        if (left >= kPanel)
            store(y, acc);
        else
            store_first(y, acc, left);
    }
    inline void put(int row, const Grid16& grid) const {
        if (grid_bad(grid)) args.bad = true;
        grid_store(args.grid + static_cast<size_t>(row) * args.ldy + first_output, grid);
    }
};

// Quantised formats: R rows of one panel. The group's weights are unpacked once for all rows.
template <class Dot, int R, bool kOnGrid>
inline void quantised_panel(const ProductArgs& args, const uint8_t* w, int row, Target target) {
    const int groups = args.layout.groups(), units = args.layout.units();
    const uint8_t* a[R];
    const float* scales[R];
    const int32_t* sums[R];
    for (int r = 0; r < R; r++) {
        a[r] = args.activations + static_cast<size_t>(row + r) * args.activation_stride;
        scales[r] = reinterpret_cast<const float*>(a[r] + static_cast<size_t>(groups) * 64);
        sums[r] = reinterpret_cast<const int32_t*>(scales[r] + groups);
    }
    VecF acc[R];
    Grid16 grid[R];
    for (int r = 0; r < R; r++) {
        acc[r] = zero();
        if (kOnGrid) grid[r] = grid_zero();
    }
    int group = 0;
    for (int u = 0; u < units; u++) {
        for (const int end = group + args.layout.unit_groups(u); group < end; group++) {
            for (size_t line = 0; line < Dot::kBlock; line += 64)
                __builtin_prefetch(w + Dot::kBlock * kPrefetchAhead + line);
            VecI dot[R];
            int32_t sum[R];
            const uint8_t* at[R];
            for (int r = 0; r < R; r++) {
                sum[r] = sums[r][group];
                at[r] = a[r] + static_cast<size_t>(group) * 64;
            }
            Dot::template group<R>(w, at, sum, dot);
            VecF scale = load_half(reinterpret_cast<const uint16_t*>(w));
            for (int r = 0; r < R; r++)
                acc[r] = fma(to_float(dot[r]), mul(scale, set1(scales[r][group])), acc[r]);
            w += Dot::kBlock;
        }
        if (kOnGrid) {
            for (int r = 0; r < R; r++) {
                grid[r] = grid_add(grid[r], acc[r]);
                acc[r] = zero();
            }
        }
    }
    for (int r = 0; r < R; r++) {
        if (kOnGrid)
            target.put(row + r, grid[r]);
        else
            target.put(row + r, acc[r]);
    }
}

template <class Dot, bool kOnGrid>
void quantised(ProductArgs& args) {
    const uint8_t* w = args.panels;
    for (int panel = 0; panel < args.num_panels; panel++, w += args.panel_stride) {
        Target target{args, panel * kPanel};
        int row = 0;
        if (!kOnGrid)
            for (; row + 8 <= args.rows; row += 8)
                quantised_panel<Dot, 8, kOnGrid>(args, w, row, target);
        for (; row + 4 <= args.rows; row += 4)
            quantised_panel<Dot, 4, kOnGrid>(args, w, row, target);
        for (; row + 2 <= args.rows; row += 2)
            quantised_panel<Dot, 2, kOnGrid>(args, w, row, target);
        for (; row < args.rows; row++) quantised_panel<Dot, 1, kOnGrid>(args, w, row, target);
    }
}

inline VecF load_weight(const float* p) { return load(p); }
inline VecF load_weight(const uint16_t* p) { return load_bf16(p); }

// Float formats: P panels of R rows at a time, so that R * P chains hide the fma's latency.
template <typename T, int R, int P, bool kOnGrid>
inline void float_panels(ProductArgs& args, int panel, int row) {
    const T* w[P];
    for (int p = 0; p < P; p++)
        w[p] = reinterpret_cast<const T*>(args.panels +
                                          static_cast<size_t>(panel + p) * args.panel_stride);
    VecF acc[R][P];
    Grid16 grid[R][P];
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) {
            acc[r][p] = zero();
            if (kOnGrid) grid[r][p] = grid_zero();
        }
    const float* x = args.x + static_cast<size_t>(row) * args.ldx;
    int k = 0;
    for (int u = 0; u < args.layout.units(); u++) {
        for (const int end = k + args.layout.unit_size(u); k < end; k++) {
            for (int p = 0; p < P; p++) {
                VecF weight = load_weight(w[p] + static_cast<size_t>(k) * kPanel);
                for (int r = 0; r < R; r++)
                    acc[r][p] = fma(weight, set1(x[r * args.ldx + k]), acc[r][p]);
            }
        }
        if (kOnGrid) {
            for (int r = 0; r < R; r++)
                for (int p = 0; p < P; p++) {
                    grid[r][p] = grid_add(grid[r][p], acc[r][p]);
                    acc[r][p] = zero();
                }
        }
    }
    for (int p = 0; p < P; p++) {
        Target target{args, (panel + p) * kPanel};
        for (int r = 0; r < R; r++) {
            if (kOnGrid)
                target.put(row + r, grid[r][p]);
            else
                target.put(row + r, acc[r][p]);
        }
    }
}

template <typename T, int P, bool kOnGrid>
inline void float_rows(ProductArgs& args, int panel) {
    int row = 0;
    for (; row + 4 <= args.rows; row += 4) float_panels<T, 4, P, kOnGrid>(args, panel, row);
    for (; row < args.rows; row++) float_panels<T, 1, P, kOnGrid>(args, panel, row);
}

template <typename T, bool kOnGrid>
void floating(ProductArgs& args) {
    int panel = 0;
    for (; panel + 4 <= args.num_panels; panel += 4) float_rows<T, 4, kOnGrid>(args, panel);
    for (; panel < args.num_panels; panel++) float_rows<T, 1, kOnGrid>(args, panel);
}

}  // namespace

void linear_f32(ProductArgs& args) { floating<float, false>(args); }
void linear_bf16(ProductArgs& args) { floating<uint16_t, false>(args); }
void linear_q8(ProductArgs& args) { quantised<DotQ8, false>(args); }
void linear_q4(ProductArgs& args) { quantised<DotQ4, false>(args); }
void linear_grid_f32(ProductArgs& args) { floating<float, true>(args); }
void linear_grid_bf16(ProductArgs& args) { floating<uint16_t, true>(args); }
void linear_grid_q8(ProductArgs& args) { quantised<DotQ8, true>(args); }
void linear_grid_q4(ProductArgs& args) { quantised<DotQ4, true>(args); }

}  // namespace bw::BW_ISA_NAME
