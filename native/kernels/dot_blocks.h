// The integers of GGUF's blocks, by ISA: see dot/block_codes.h for what a variant provides. AMX has
// AVX-512's: a super-block's integer scales stand between the products that tiles could add up.
#pragma once
#if defined(BW_ISA_AVX512) || defined(BW_ISA_AMX)
#include "kernels/dot/avx512_blocks.h"
#elif defined(BW_ISA_AVX_VNNI)
#include "kernels/dot/avx_vnni_blocks.h"
#elif defined(BW_ISA_AVX2)
#include "kernels/dot/avx2_blocks.h"
#elif defined(BW_ISA_NEON)
#include "kernels/dot/neon_blocks.h"
#else
#include "kernels/dot/portable_blocks.h"
#endif
