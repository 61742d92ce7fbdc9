#include "core/file_runs.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

namespace bw {

namespace {

constexpr uint64_t kGap = 4096;

// What of the bytes is in memory already, where the system tells; else 0.
size_t read_cached(int descriptor, uint64_t offset, size_t bytes, uint8_t* target) {
#if defined(RWF_NOWAIT)
    iovec where{target, bytes};
    const ssize_t got = preadv2(descriptor, &where, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    return got > 0 ? static_cast<size_t>(got) : 0;
#else
    (void)descriptor, (void)offset, (void)bytes, (void)target;
    return 0;
#endif
}

// Has the system begin to fetch all of it, so that the disk works while a processor does.
void fetch(int descriptor, uint64_t start, uint64_t stop) {
#if defined(POSIX_FADV_WILLNEED)
    posix_fadvise(descriptor, static_cast<off_t>(start), static_cast<off_t>(stop - start),
                  POSIX_FADV_WILLNEED);
#else
    (void)descriptor, (void)start, (void)stop;
#endif
}

}  // namespace

FileRuns::FileRuns(int descriptor, uint64_t start, uint64_t stride, size_t length, size_t count)
    : descriptor_(descriptor), start_(start), stride_(stride), length_(length) {
    stop_ = count == 0 ? start : start + stride * (count - 1) + length;
    pitch_ = stride - length <= kGap ? static_cast<size_t>(stride) : length;
}

bool FileRuns::read(size_t first, size_t count, uint8_t* target) {
    if (count == 0) return true;
    const uint64_t offset = start_ + stride_ * first;
    if (pitch_ == stride_) return read_at(offset, (count - 1) * pitch_ + length_, target);
    for (size_t i = 0; i < count; i++)
        if (!read_at(offset + stride_ * i, length_, target + pitch_ * i)) return false;
    return true;
}

bool FileRuns::read_at(uint64_t offset, size_t bytes, uint8_t* target) {
    size_t done = read_cached(descriptor_, offset, bytes, target);
    if (done < bytes && !asked_ && pitch_ == stride_) {
        asked_ = true;
        fetch(descriptor_, offset + done, stop_);
    }
    while (done < bytes) {
        const ssize_t got =
            pread(descriptor_, target + done, bytes - done, static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        done += static_cast<size_t>(got);
    }
    return true;
}

}  // namespace bw
