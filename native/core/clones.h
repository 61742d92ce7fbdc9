// BW_CLONES: plain loops that a compiler turns into vectors, once for AVX2 and once for any
// processor, chosen when the program starts. Only where no rounding depends on the width.
#pragma once

// Choosing needs glibc's loader (musl's can't).
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && \
    (!defined(__clang__) || __clang_major__ >= 14)
#define BW_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define BW_CLONES
#endif
