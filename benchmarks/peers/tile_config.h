/* For compiling llama.cpp on processors with AMX: GCC 12 takes only the first 8 of the 64 bytes that
   ldtilecfg reads for used, leaves the rest unwritten, and llama.cpp ends on an illegal
   instruction at its first prompt. */
#if defined(__cplusplus) && defined(__AMX_TILE__)
#include <immintrin.h>
#undef _tile_loadconfig
#define _tile_loadconfig(config)                                             \
    do {                                                                     \
        const void* tiles_ = (config);                                       \
        __asm__ volatile("ldtilecfg\t%X0" : : "m"(*(const char(*)[64])tiles_)); \
    } while (0)
#endif
