// Products of GGUF's super-blocks of nibbles and more than 4 bits; split over files so that they
// compile side by side.
#include "kernels/block_panel.h"
#include "kernels/variant.h"

namespace bw::BW_ISA_NAME {

BW_BLOCK_PRODUCT(q4_k)
BW_BLOCK_PRODUCT(q5_k)
BW_BLOCK_PRODUCT(q6_k)

}  // namespace bw::BW_ISA_NAME
