#include "core/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "core/system.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace bw {

namespace {

constexpr size_t kHuge = size_t{2} << 20;
constexpr size_t kSlack = 64;  // for the last piece's alignment

// Where the address sanitizer watches, what nobody has taken is out of bounds. It writes a byte for
// every eight that it watches, so of large arenas it only watches the ends.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kMostWatched = size_t{16} << 20;

void forbid(const uint8_t* from, const uint8_t* to) {
    ASAN_POISON_MEMORY_REGION(from, static_cast<size_t>(to - from));
}
void allow(const uint8_t* from, const uint8_t* to) {
    ASAN_UNPOISON_MEMORY_REGION(from, static_cast<size_t>(to - from));
}
#else
constexpr size_t kMostWatched = 0;

void forbid(const uint8_t*, const uint8_t*) {}
void allow(const uint8_t*, const uint8_t*) {}
#endif

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
    // Small models are better off with small pages: a huge one would be mostly empty.
    if (bytes >= 4 * kHuge) ask_huge_pages(base_, bytes);
    forbid(mapping_, base_);
    forbid(base_ + (bytes <= kMostWatched ? 0 : bytes + kSlack), mapping_ + mapped_);
}

Arena::~Arena() {
    allow(mapping_, base_);
    allow(base_ + (size_ <= kMostWatched ? 0 : size_ + kSlack), mapping_ + mapped_);
    munmap(mapping_, mapped_);
}

uint8_t* Arena::take(size_t bytes) {
    const size_t start = (used_ + 63) / 64 * 64;
    if (start > size_ + kSlack || bytes > size_ + kSlack - start) throw std::bad_alloc();
    used_ = start + bytes;
    if (size_ <= kMostWatched) allow(base_ + start, base_ + used_);
    return base_ + start;
}

void Arena::forget(const uint8_t* from, size_t bytes) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t start = (reinterpret_cast<uintptr_t>(from) + page - 1) / page * page;
    const uintptr_t stop = (reinterpret_cast<uintptr_t>(from) + bytes) / page * page;
    // Advice: where the system does not take it, the memory is only freed later.
    if (start < stop) madvise(reinterpret_cast<void*>(start), stop - start, MADV_DONTNEED);
}

}  // namespace bw
