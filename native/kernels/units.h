// Where the accumulators of N outputs go when a unit of k ends: nowhere (the product is whole over
// k), or on the grid of docs/numerics.md section 4, in int32 lanes or in int64 lanes. On its way to
// the grid a unit's sum is multiplied by its row's factor; P accumulators in a row are of one row.
#pragma once
#include "kernels/kernels.h"
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

// Products whose outputs are split: one accumulator over the whole of k.
template <int N, int P = 1>
struct NoUnits {
    VecF sum[N];

    inline void start(const float*) {}
    inline void end_unit(VecF*) {}
    inline void end(const VecF* acc) {
        for (int i = 0; i < N; i++) sum[i] = acc[i];
    }
    inline bool fits() const { return true; }
};

// For as long as every unit's steps fit int32: a third of the instructions of int64 lanes. The
// steps are added in halves, so that their sum fits too.
template <int N, int P = 1>
struct NarrowUnits {
    static constexpr int kMostUnits = 1 << 15;
    VecI low[N], high[N], largest;
    float steps[N / P];

    inline void start(const float* factors) {
        // A power of two changes no bit of a factor: once rounded, the product is the same.
        for (int r = 0; r < N / P; r++) steps[r] = (factors ? factors[r] : 1.0f) * 0x1p24f;
        for (int i = 0; i < N; i++) low[i] = high[i] = izero();
        largest = izero();
    }
    inline void end_unit(VecF* acc) {
        for (int i = 0; i < N; i++) {
            VecF t = mul(acc[i], set1(steps[i / P]));
            largest = imax(largest, abs_bits(t));
            VecI steps = to_int(t);
            low[i] = iadd(low[i], low_16(steps));
            high[i] = iadd(high[i], shift_right_16(steps));
            acc[i] = zero();
        }
    }
    inline void end(const VecF*) {}
    // False where a magnitude reaches 2^31 or is no number: the sums are worth nothing then.
    inline bool fits() const { return reduce_imax(largest) < 0x4f000000; }
    inline bool put(int i, int64_t* out, bool add) const {
        int32_t lows[16], highs[16];
        store_int(lows, low[i]);
        store_int(highs, high[i]);
        if (add)
            for (int j = 0; j < 16; j++) out[j] += int64_t{highs[j]} * 65536 + lows[j];
        else
            for (int j = 0; j < 16; j++) out[j] = int64_t{highs[j]} * 65536 + lows[j];
        return true;
    }
};

template <int N, int P = 1>
struct WideUnits {
    Grid16 sum[N];
    float factor[N / P];

    inline void start(const float* factors) {
        for (int r = 0; r < N / P; r++) factor[r] = factors ? factors[r] : 1.0f;
        for (int i = 0; i < N; i++) sum[i] = grid_zero();
    }
    inline void end_unit(VecF* acc) {
        for (int i = 0; i < N; i++) {
            sum[i] = grid_add(sum[i], mul(acc[i], set1(factor[i / P])));
            acc[i] = zero();
        }
    }
    inline void end(const VecF*) {}
    inline bool fits() const { return true; }
    // False where a value was out of the grid's range.
    inline bool put(int i, int64_t* out, bool add) const {
        int64_t whole[16];
        grid_store(whole, sum[i]);
        for (int j = 0; j < 16; j++) out[j] = (add ? out[j] : 0) + whole[j];
        return !grid_bad(sum[i]);
    }
};

}  // namespace bw::BW_ISA_NAME
