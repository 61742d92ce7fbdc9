// Products of GGUF's the narrower super-blocks; split over files so that they compile side by side.
#include "kernels/block_panel.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {

BW_BLOCK_PRODUCT(q2_k)
BW_BLOCK_PRODUCT(q3_k)
BW_BLOCK_PRODUCT(iq4_xs)

}  // namespace bw::BW_ISA_NAME
