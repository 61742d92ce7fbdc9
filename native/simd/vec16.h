// One 16-lane vector type per ISA variant, in the variant's own namespace.
// Every float operation of the engine is written once, over VecF; see docs/numerics.md.
// A kernel file is compiled once per variant with BW_ISA_NAME set to the namespace.
#pragma once

#if defined(BW_ISA_AVX512) || defined(BW_ISA_AMX)
#include "simd/vec16_avx512.h"
#elif defined(BW_ISA_AVX2) || defined(BW_ISA_AVX_VNNI)
#include "simd/vec16_avx2.h"
#elif defined(BW_ISA_NEON)
#include "simd/vec16_neon.h"
#elif defined(BW_ISA_PORTABLE)
#include "simd/vec16_portable.h"
#else
#error "compile kernels with one of BW_ISA_AMX, _AVX512, _AVX_VNNI, _AVX2, _NEON, _PORTABLE"
#endif
