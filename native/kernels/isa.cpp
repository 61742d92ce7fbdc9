#include "kernels/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <stdexcept>

namespace bw {

#if defined(__x86_64__)
namespace {
// Older clangs don't know the name "f16c".
bool has_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
}  // namespace
#endif

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> usable;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vnni"))
        usable.push_back(&avx512::kernels());
    if (avx2) usable.push_back(&avx2::kernels());
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
