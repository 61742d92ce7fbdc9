#include "kernels/isa.h"

#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace bw {

namespace {

#if defined(__x86_64__)

// Older compilers don't know the names "f16c" and "avxvnni".
bool has_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

[[maybe_unused]] bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

[[maybe_unused]] bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

#if defined(BW_HAS_AVX512_AMX) && defined(__linux__)
// Tiles need the system's permission, which a process asks for once; its threads have it then.
bool has_amx() {
    constexpr long kAskPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & (1u << 24)) &&
           (d & (1u << 25)) && syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
}
#elif defined(BW_HAS_AVX512_AMX)
bool has_amx() { return false; }
#endif

#if defined(BW_HAS_AVX2_VNNI) && defined(BW_VNNI_AS_AVX512)
bool has_avx_vnni() { return has_avx512(); }
#elif defined(BW_HAS_AVX2_VNNI)
bool has_avx_vnni() {
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4));
}
#endif

#elif defined(__aarch64__) && defined(__APPLE__)

bool feature(const char* name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() { return feature("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has_dotprod() && feature("hw.optional.arm.FEAT_I8MM"); }

#elif defined(__aarch64__) && defined(__linux__)

// The kernel's numbers; older headers lack the names.
constexpr unsigned long kDotprod = 1ul << 20;  // HWCAP_ASIMDDP
constexpr unsigned long kI8mm = 1ul << 13;     // HWCAP2_I8MM

bool has_dotprod() { return (getauxval(AT_HWCAP) & kDotprod) != 0; }
bool has_i8mm() { return has_dotprod() && (getauxval(AT_HWCAP2) & kI8mm) != 0; }

#elif defined(__aarch64__)

bool has_dotprod() { return false; }
bool has_i8mm() { return false; }

#endif

}  // namespace

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> usable;
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
#if defined(BW_HAS_AVX512_AMX)
    if (has_amx()) usable.push_back(&avx512_amx::kernels());
#endif
#if defined(BW_HAS_AVX512)
    if (has_avx512()) usable.push_back(&avx512::kernels());
#endif
#if defined(BW_HAS_AVX2_VNNI)
    if (has_avx_vnni()) usable.push_back(&avx2_vnni::kernels());
#endif
#if defined(BW_HAS_AVX2)
    if (has_avx2()) usable.push_back(&avx2::kernels());
#endif
#if defined(BW_HAS_NEON_I8MM)
    if (has_i8mm()) usable.push_back(&neon_i8mm::kernels());
#endif
#if defined(BW_HAS_NEON_DOTPROD)
    if (has_dotprod()) usable.push_back(&neon_dotprod::kernels());
#endif
#if defined(BW_HAS_NEON)
    usable.push_back(&neon::kernels());
#endif
    usable.push_back(&portable::kernels());
    return usable;
}

const Kernels& find_kernels(const std::string& name) {
    const auto usable = usable_kernels();
    if (name.empty()) return *usable.front();
    std::string names;
    for (const Kernels* kernels : usable) {
        if (name == kernels->name) return *kernels;
        names += (names.empty() ? "" : ", ") + std::string(kernels->name);
    }
    throw std::invalid_argument("this processor has no ISA variant '" + name + "'; it has " +
                                names);
}

}  // namespace bw
