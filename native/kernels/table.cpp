// One ISA variant's table of kernels.
#include "kernels/variant.h"

#define BW_TEXT_(x) #x
#define BW_TEXT(x) BW_TEXT_(x)
#define BW_PRODUCT(format) linear_##format,
#define BW_GRID_PRODUCT(format) linear_grid_##format,

namespace bw::BW_ISA_NAME {

const Kernels& kernels() {
    static constexpr Kernels table = {
        BW_TEXT(BW_ISA_NAME),
        quantize,
        {BW_PLAIN_FORMATS(BW_PRODUCT) BW_BLOCK_FORMATS(BW_PRODUCT)},
        {BW_PLAIN_FORMATS(BW_GRID_PRODUCT) BW_BLOCK_FORMATS(BW_GRID_PRODUCT)},
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
