// Products of GGUF's blocks of 32; split over files so that they compile side by side.
#include "kernels/block_panel.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {

BW_BLOCK_PRODUCT(q4_1)
BW_BLOCK_PRODUCT(q5_0)
BW_BLOCK_PRODUCT(q5_1)
BW_BLOCK_PRODUCT(iq4_nl)

}  // namespace bw::BW_ISA_NAME
