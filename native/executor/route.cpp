#include "executor/route.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/stored.h"

namespace bw {

namespace {

enum Scoring { kSoftmax = 0, kSigmoid = 1, kSoftmaxOfChosen = 2 };
enum GroupScore { kLargest = 0, kTwoLargest = 1 };
enum Shared { kNone = 0, kPlain = 1, kGated = 2 };

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kLeastSum = 1e-20f;  // keeps the division of vanishing weights defined

// Marks the `count` largest of n numbers, the first ones on ties.
void mark_largest(const float* x, int n, int count, uint8_t* marked) {
    std::fill_n(marked, n, uint8_t{0});
    for (int i = 0; i < count; i++) {
        int best = -1;
        for (int j = 0; j < n; j++)
            if (!marked[j] && (best < 0 || x[j] > x[best])) best = j;
        marked[best] = 1;
    }
}

float group_score(const float* x, int n, int kind) {
    float first = kLowest, second = kLowest;
    for (int i = 0; i < n; i++) {
        if (x[i] > first) {
            second = first;
            first = x[i];
        } else if (x[i] > second) {
            second = x[i];
        }
    }
    return kind == kTwoLargest ? first + second : first;
}

// Only the experts of the best groups can be chosen: the others' scores become the lowest.
void leave_out_groups(const Op& op, float* choice, float* scores, uint8_t* kept) {
    const int each = op.experts / op.groups;
    for (int g = 0; g < op.groups; g++)
        scores[g] = group_score(choice + g * each, each, op.group_score);
    mark_largest(scores, op.groups, op.top_groups, kept);
    for (int g = 0; g < op.groups; g++)
        if (!kept[g]) std::fill_n(choice + g * each, each, kLowest);
}

}  // namespace

size_t route_scratch(const Op& op) {
    return 4 * static_cast<size_t>(padded(op.experts)) + 2 * static_cast<size_t>(padded(op.top_k));
}

bool route_row(const Op& op, const Kernels& kernels, const float* logits, const float* correction,
               float* scratch, float* routes) {
    const int n = op.experts, k = op.top_k;
    for (int i = 0; i < op.a.width; i++)
        if (!std::isfinite(logits[i])) return false;
    const auto wide = static_cast<size_t>(padded(n));
    float *scores = scratch, *choice = scores + wide, *of_groups = choice + wide;
    auto* marked = reinterpret_cast<uint8_t*>(of_groups + wide);
    float* chosen = of_groups + 2 * wide;
    if (op.scoring == kSoftmax)
        kernels.softmax(logits, scores, n);
    else if (op.scoring == kSigmoid)
        kernels.sigmoid(logits, scores, n);
    else
        std::copy_n(logits, n, scores);
    for (int i = 0; i < n; i++) {
        choice[i] = correction ? scores[i] + correction[i] : scores[i];
        // Nothing else keeps a correction from being a NaN, which no order has a place for.
        if (!std::isfinite(choice[i])) return false;
    }
    if (op.groups > 1) leave_out_groups(op, choice, of_groups, marked);
    mark_largest(choice, n, k, marked);
    const int slots = op.out.width / 2;
    float* weights = routes + slots;
    for (int i = 0, at = 0; i < n; i++) {
        if (!marked[i]) continue;
        routes[at] = static_cast<float>(i);
        chosen[at++] = scores[i];
    }
    if (op.scoring == kSoftmaxOfChosen) kernels.softmax(chosen, chosen, k);
    float divisor = 1.0f;
    if (op.normalise) {
        float sum = 0.0f;
        for (int i = 0; i < k; i++) sum += chosen[i];
        divisor = sum + kLeastSum;
    }
    for (int i = 0; i < k; i++) weights[i] = chosen[i] / divisor * op.factor;
    if (op.shared != kNone) {
        routes[k] = static_cast<float>(n);
        weights[k] = 1.0f;
        if (op.shared == kGated) kernels.sigmoid(logits + n, weights + k, 1);
    }
    store_values(weights, static_cast<size_t>(slots), weights);
    return true;
}

}  // namespace bw
