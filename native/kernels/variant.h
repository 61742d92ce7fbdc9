// Declarations of one ISA variant's kernels, for its table.
#pragma once
#include "kernels/kernels.h"

namespace bw::BW_ISA_NAME {

bool quantize(Format, const float*, const Layout&, uint8_t*);
void rms_norm(const float*, const float*, float*, int, float);
void layer_norm(const float*, const float*, float*, int, float);
float squares(const float*, int);
void scale_by(const float*, float, const float*, float*, int);
void add_scaled(const float*, const float*, float, float*, int);
void scale(const float*, float, float*, int);
void soft_cap(const float*, float, float*, int);
void gated_mul(GateFunction, const float*, const float*, float*, int, float, float);
void rope(float*, const float*, const float*, int, bool);
bool residual_add(const int64_t*, const float*, float*, int);
void exp_array(const float*, float*, size_t);
void softmax(const float*, float*, int);
void sigmoid(const float*, float*, int);
void l2_norm(const float*, float*, int, float, float);
void decay(const float*, const float*, const float*, float*, int);
void short_conv(const ConvArgs&);
void delta_rule(const DeltaArgs&);
bool grid_bias(const float*, float, int64_t*, int);
int argmax(const float*, int);
void content_row(const uint8_t*, size_t, size_t, uint64_t, uint64_t*);
bool kv_store(void*, const float*, const float*, int, int, bool);
void attention(const AttentionArgs&);
bool latent_store(void*, const float*, int, int, bool);
void latent_attention(const LatentArgs&);
#define BW_DECLARE_PRODUCT(format)      \
    void linear_##format(ProductArgs&); \
    void linear_grid_##format(ProductArgs&);
#define BW_PLAIN_FORMATS(apply) \
    apply(f32) apply(bf16) apply(q8) apply(q4) apply(mxfp4) apply(nf4) apply(ulaw4)
#define BW_BLOCK_FORMATS(apply)                                                           \
    apply(q4_1) apply(q5_0) apply(q5_1) apply(iq4_nl) apply(q2_k) apply(q3_k) apply(q4_k) \
        apply(q5_k) apply(q6_k) apply(iq4_xs)
BW_PLAIN_FORMATS(BW_DECLARE_PRODUCT)
#if !defined(BW_BLOCKS_OF)
BW_BLOCK_FORMATS(BW_DECLARE_PRODUCT)
#endif

}  // namespace bw::BW_ISA_NAME

// Where another variant's products of GGUF's blocks serve.
#if defined(BW_BLOCKS_OF)
namespace bw::BW_BLOCKS_OF {
BW_BLOCK_FORMATS(BW_DECLARE_PRODUCT)
}
namespace bw::BW_ISA_NAME {
#define BW_USE_PRODUCT(format)           \
    using BW_BLOCKS_OF::linear_##format; \
    using BW_BLOCKS_OF::linear_grid_##format;
BW_BLOCK_FORMATS(BW_USE_PRODUCT)
#undef BW_USE_PRODUCT
}  // namespace bw::BW_ISA_NAME
#endif
#undef BW_DECLARE_PRODUCT
