#include "core/system.h"

#include <sys/mman.h>

#if defined(__APPLE__)
#include <pthread.h>
#include <pthread/qos.h>
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#endif

namespace bw {

#if defined(__APPLE__)

void place_thread(int) { pthread_set_qos_class_self_np(QOS_CLASS_USER_INTERACTIVE, 0); }

bool has_arm_crc32() {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname("hw.optional.armv8_crc32", &value, &size, nullptr, 0) == 0 && value != 0;
}

#elif defined(__linux__)

void place_thread(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(cpu), &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

bool has_arm_crc32() {
#if defined(__aarch64__)
    // The kernel's number; older headers lack the name.
    constexpr unsigned long kCrc32 = 1ul << 7;  // HWCAP_CRC32
    return (getauxval(AT_HWCAP) & kCrc32) != 0;
#else
    return false;
#endif
}

#else

void place_thread(int) {}

bool has_arm_crc32() { return false; }

#endif

void ask_huge_pages(void* memory, size_t bytes) {
#if defined(MADV_HUGEPAGE)
    madvise(memory, bytes, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

}  // namespace bw
