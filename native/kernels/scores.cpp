// What routers make of their logits, and biases on the grid. One text for every ISA variant.
#include "kernels/math.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {

namespace {

// The sum over 64 virtual lanes and the fixed tree.
inline float sum_lanes(const float* x, int n) {
    VecF a = zero(), b = zero(), c = zero(), d = zero();
    for (; n > 0; n -= 64, x += 64) {
        a = add(a, load_some(x, n));
        if (n > 16) b = add(b, load_some(x + 16, n - 16));
        if (n > 32) c = add(c, load_some(x + 32, n - 32));
        if (n > 48) d = add(d, load_some(x + 48, n - 48));
    }
    return reduce_lanes(a, b, c, d);
}

}  // namespace

void softmax(const float* x, float* y, int n) {
    float largest = x[0];
    for (int i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    for (int i = 0; i < n; i += 16) {
        const VecF e = counted(exp(sub(load_some(x + i, n - i), set1(largest))));
        store_some(y + i, e, n - i);
    }
    const VecF sum = set1(sum_lanes(y, n));
    for (int i = 0; i < n; i += 16)
        store_some(y + i, stored(div(load_some(y + i, n - i), sum)), n - i);
}

void sigmoid(const float* x, float* y, int n) {
    for (int i = 0; i < n; i += 16) {
        const VecF e = exp(neg(load_some(x + i, n - i)));
        store_some(y + i, stored(div(set1(1.0f), add(set1(1.0f), e))), n - i);
    }
}

bool grid_bias(const float* bias, float factor, int64_t* grid, int n) {
    bool good = true;
    for (int i = 0; i < n; i += 16) {
        const Grid16 one = grid_add(grid_zero(), mul(load_some(bias + i, n - i), set1(factor)));
        int64_t whole[16];
        grid_store(whole, one);
        good &= !grid_bad(one);
        for (int j = 0; j < 16 && i + j < n; j++) grid[i + j] += whole[j];
    }
    return good;
}

}  // namespace bw::BW_ISA_NAME
