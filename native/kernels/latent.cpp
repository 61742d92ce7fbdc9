// Latent attention: all heads read one key a position, whose first elements are its value too. One
// text for every ISA variant.
//
// A page holds [64 positions][padded k_dim]. What the heads' products want of it, keys side by side
// and both as floats, is made once and serves many queries.
#include "kernels/attention_chunk.h"

namespace bw::BW_ISA_NAME {
namespace {

template <typename T>
void open_page(const LatentArgs& args, const T* page, int places, float* keys, float* values) {
    const int k_dim = args.k_dim, stride = padded(k_dim), wide = padded(args.v_dim);
    for (int j = 0; j < places; j++) {
        const T* row = page + static_cast<size_t>(j) * stride;
        float* column = keys + static_cast<size_t>(j / 16) * k_dim * 16 + j % 16;
        float* value = values + static_cast<size_t>(j) * wide;
        for (int d = 0; d < k_dim; d += 16) {
            float some[16];
            const VecF v = load_element(row + d);
            store(some, v);
            if (d < wide) store(value + d, v);
            for (int i = 0; i < 16 && d + i < k_dim; i++)
                column[static_cast<size_t>(d + i) * 16] = some[i];
        }
    }
}

template <typename T>
void attend(const LatentArgs& args) {
    const int wide = padded(args.v_dim), heads = args.heads;
    float* keys = args.scratch;
    float* values = keys + static_cast<size_t>(kPage) * args.k_dim;
    float* part = values + static_cast<size_t>(kPage) * wide;
    float* scores = part + static_cast<size_t>(kMostHeads) * wide;
    float* total = scores + static_cast<size_t>(kMostHeads) * kPage;
    float best[kLatentQueries], sum[kLatentQueries];
    bool started[kLatentQueries] = {};
    // Floats that were made a moment ago need no fetching.
    const KeyChunk<float> chunk{keys, values, args.k_dim, args.v_dim, args.scale, 0.0f, 0};
    int longest = 0;
    for (int r = 0; r < args.rows; r++) longest = larger(longest, args.positions[r]);
    for (int c = 0; c <= longest / kPage; c++) {
        open_page(args, static_cast<const T*>(args.pages[c]),
                  smaller(longest - c * kPage + 1, kPage), keys, values);
        for (int r = 0; r < args.rows; r++) {
            const int to = smaller(args.positions[r] - c * kPage + 1, kPage);
            if (to <= 0) continue;
            for (int h = 0; h < heads; h += kMostHeads) {
                const int at = r * heads + h;
                const Softmax state{total + static_cast<size_t>(at) * wide,
                                    part,
                                    scores,
                                    best + at,
                                    sum + at,
                                    started + at};
                read_chunk<float>(chunk, state,
                                  args.q + r * args.q_stride + static_cast<size_t>(h) * args.k_dim,
                                  0, smaller(heads - h, kMostHeads), 0, to);
            }
        }
    }
    for (int i = 0; i < args.rows * heads; i++) {
        const VecF denominator = set1(sum[i]);
        const float* have = total + static_cast<size_t>(i) * wide;
        float* to =
            args.out + i / heads * args.out_stride + static_cast<size_t>(i % heads) * args.v_dim;
        for (int d = 0; d < args.v_dim; d += 16)
            store_some(to + d, stored(div(load(have + d), denominator)), args.v_dim - d);
    }
}

template <typename T>
bool keep(T* page, const float* k, int place, int dim) {
    T* row = page + static_cast<size_t>(place) * padded(dim);
    bool good = true;
    for (int d = 0; d < dim; d += 16) {
        store_elements(row + d, load_some(k + d, dim - d));
        for (int i = 0; i < 16; i++) good &= finite(row[d + i]);
    }
    return good;
}

}  // namespace

bool latent_store(void* page, const float* k, int place, int dim, bool half) {
    if (half) return keep(static_cast<uint16_t*>(page), k, place, dim);
    return keep(static_cast<float*>(page), k, place, dim);
}

void latent_attention(const LatentArgs& args) {
    if (args.half)
        attend<uint16_t>(args);
    else
        attend<float>(args);
}

}  // namespace bw::BW_ISA_NAME
