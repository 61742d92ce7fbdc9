// Exact integer dot products of one group of a weight panel with R rows: the only arithmetic that
// is written per ISA, since integers can't differ. See dot/block.h for what a variant provides.
#pragma once
#include "kernels/kernels.h"

#if defined(BW_ISA_AMX)
#include "kernels/dot/amx.h"
#elif defined(BW_ISA_AVX512)
#include "kernels/dot/avx512.h"
#elif defined(BW_ISA_AVX_VNNI)
#include "kernels/dot/avx_vnni.h"
#elif defined(BW_ISA_AVX2)
#include "kernels/dot/avx2.h"
#elif defined(BW_ISA_NEON)
#include "kernels/dot/neon.h"
#else
#include "kernels/dot/portable.h"
#endif
#include "simd/vec16.h"

namespace bw::BW_ISA_NAME {

using DotQ4 = DotCodes<Q4Codes>;
using DotMxfp4 = DotCodes<Mxfp4Codes>;
using DotNf4 = DotCodes<Nf4Codes>;
using DotUlaw4 = DotCodes<Ulaw4Codes>;

// The 16 scales of a block.
template <class Dot>
BW_INLINE VecF load_scales(const uint8_t* block) {
    if constexpr (Dot::kScaleBytes == kPanel)
        return load_exponents(block);
    else
        return load_half(reinterpret_cast<const uint16_t*>(block));
}

}  // namespace bw::BW_ISA_NAME
