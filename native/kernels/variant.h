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
BW_DECLARE_PRODUCT(f32)
BW_DECLARE_PRODUCT(bf16)
BW_DECLARE_PRODUCT(q8)
BW_DECLARE_PRODUCT(q4)
BW_DECLARE_PRODUCT(mxfp4)
BW_DECLARE_PRODUCT(nf4)
BW_DECLARE_PRODUCT(ulaw4)
BW_DECLARE_PRODUCT(q4_1)
BW_DECLARE_PRODUCT(q5_0)
BW_DECLARE_PRODUCT(q5_1)
BW_DECLARE_PRODUCT(iq4_nl)
BW_DECLARE_PRODUCT(q2_k)
BW_DECLARE_PRODUCT(q3_k)
BW_DECLARE_PRODUCT(q4_k)
BW_DECLARE_PRODUCT(q5_k)
BW_DECLARE_PRODUCT(q6_k)
BW_DECLARE_PRODUCT(iq4_xs)
#undef BW_DECLARE_PRODUCT

}  // namespace bw::BW_ISA_NAME
