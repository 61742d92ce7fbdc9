// One ISA variant's table of kernels.
#include "kernels/variant.h"

#define BW_TEXT_(x) #x
#define BW_TEXT(x) BW_TEXT_(x)

namespace bw::BW_ISA_NAME {

const Kernels& kernels() {
    static constexpr Kernels table = {
        BW_TEXT(BW_ISA_NAME),
        quantize,
        {linear_f32, linear_bf16, linear_q8, linear_q4, linear_mxfp4, linear_nf4, linear_ulaw4,
         linear_q4_1, linear_q5_0, linear_q5_1, linear_iq4_nl, linear_q2_k, linear_q3_k,
         linear_q4_k, linear_q5_k, linear_q6_k, linear_iq4_xs},
        {linear_grid_f32, linear_grid_bf16, linear_grid_q8, linear_grid_q4, linear_grid_mxfp4,
         linear_grid_nf4, linear_grid_ulaw4, linear_grid_q4_1, linear_grid_q5_0, linear_grid_q5_1,
         linear_grid_iq4_nl, linear_grid_q2_k, linear_grid_q3_k, linear_grid_q4_k, linear_grid_q5_k,
         linear_grid_q6_k, linear_grid_iq4_xs},
        rms_norm,
        layer_norm,
        squares,
        scale_by,
        gated_mul,
        rope,
        kv_store,
        attention,
        latent_store,
        latent_attention,
        residual_add,
        add_scaled,
        scale,
        soft_cap,
        exp_array,
        softmax,
        sigmoid,
        l2_norm,
        decay,
        short_conv,
        delta_rule,
        grid_bias,
        argmax,
        content_row,
    };
    return table;
}

}  // namespace bw::BW_ISA_NAME
