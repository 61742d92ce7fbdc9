#include "core/arena.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

// Where the address sanitizer watches, what nobody has taken is out of bounds.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define BW_POISON(from, bytes) ASAN_POISON_MEMORY_REGION(from, bytes)
#define BW_UNPOISON(from, bytes) ASAN_UNPOISON_MEMORY_REGION(from, bytes)
#else
#define BW_POISON(from, bytes)
#define BW_UNPOISON(from, bytes)
#endif

namespace bw {

namespace {
constexpr size_t kHuge = size_t{2} << 20;
}  // namespace

Arena::Arena(size_t bytes) : size_(bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    mapped_ = (bytes + 2 * kHuge) / kHuge * kHuge;
    void* memory =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<uint8_t*>(memory);
    auto address = reinterpret_cast<uintptr_t>(mapping_);
    base_ = mapping_ + (kHuge - address % kHuge) % kHuge;
#if defined(MADV_HUGEPAGE)
    // Small models are better off with small pages: a huge one would be mostly empty.
    if (bytes >= 4 * kHuge) madvise(base_, bytes, MADV_HUGEPAGE);
#endif
    BW_POISON(mapping_, mapped_);
}

Arena::~Arena() {
    BW_UNPOISON(mapping_, mapped_);
    if (mapping_) munmap(mapping_, mapped_);
}

uint8_t* Arena::take(size_t bytes) {
    size_t start = (used_ + 63) / 64 * 64;
    if (start > size_ + 64 || bytes > size_ + 64 - start) throw std::bad_alloc();
    used_ = start + bytes;
    BW_UNPOISON(base_ + start, bytes);
    return base_ + start;
}

}  // namespace bw
