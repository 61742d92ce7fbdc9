// A link as slow as another: bytes of a transport that arrive later than they came.
//
// Both ends are processes of one host and so share a clock: the sender writes the time before what
// it sends, and the receiver holds it until the emulated link would have delivered it. So it
// does not matter when the receiver looks, and no third party needs a processor.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <deque>
#include <vector>

#include "core/clock.h"
#include "core/crc32c.h"
#include "exchange/transport.h"

namespace bw {

namespace {

struct RecordHeader {
    double sent;  // on the clock of now()
    uint32_t bytes;
    uint32_t sum;  // crc32c of all before it
};

uint32_t sum_of(const RecordHeader& header) {
    return crc32c(0, &header, offsetof(RecordHeader, sum));
}

constexpr size_t kRecord = 64 << 10;  // bytes that travel under one time
constexpr size_t kMostHeld = 8 << 20;
constexpr size_t kReadAtOnce = 256 << 10;

class EmulatedTransport final : public Transport {
  public:
    EmulatedTransport(std::unique_ptr<Transport> inner, double latency, double bytes_per_s)
        : inner_(std::move(inner)), latency_(latency), bytes_per_s_(bytes_per_s) {}

    int64_t send(const void* data, size_t bytes) override {
        if (!flush()) return gone_ ? kGone : 0;
        const size_t n = std::min(bytes, kRecord);
        RecordHeader header{now(), static_cast<uint32_t>(n), 0};
        header.sum = sum_of(header);
        out_.resize(sizeof header + n);
        std::memcpy(out_.data(), &header, sizeof header);
        std::memcpy(out_.data() + sizeof header, data, n);
        sent_ = 0;
        flush();
        return static_cast<int64_t>(n);
    }

    int64_t receive(void* data, size_t bytes) override {
        flush();
        take();
        if (held_.empty()) return damaged_ ? kDamaged : gone_ ? kGone : 0;
        Record& first = held_.front();
        if (now() < first.due) return 0;
        const size_t n = std::min(bytes, first.bytes.size() - first.read);
        std::memcpy(data, first.bytes.data() + first.read, n);
        first.read += n;
        held_bytes_ -= n;
        if (first.read == first.bytes.size()) held_.pop_front();
        return static_cast<int64_t>(n);
    }

    bool flush() override {
        while (sent_ < out_.size()) {
            const int64_t moved = inner_->send(out_.data() + sent_, out_.size() - sent_);
            if (moved < 0) gone_ = true;
            if (moved <= 0) return false;
            sent_ += static_cast<size_t>(moved);
        }
        return !gone_ && inner_->flush();
    }

    bool on_wire() const override { return inner_->on_wire(); }
    bool partial() const override { return !in_.empty() || !held_.empty() || inner_->partial(); }
    int descriptor() const override { return inner_->descriptor(); }
    short prepare_wait(bool reading, bool writing) override {
        const short events = inner_->prepare_wait(reading, writing || sent_ < out_.size());
        // What is held needs no wait on the descriptor, but on the clock.
        return held_.empty() ? events : 0;
    }
    void finish_wait() override { inner_->finish_wait(); }

  private:
    struct Record {
        double due;
        std::vector<uint8_t> bytes;
        size_t read;
    };

    // Reads what has come, and says when each record is due.
    void take() {
        while (held_bytes_ < kMostHeld && !gone_ && !damaged_) {
            const size_t before = in_.size();
            in_.resize(before + kReadAtOnce);
            const int64_t moved = inner_->receive(in_.data() + before, kReadAtOnce);
            in_.resize(before + static_cast<size_t>(std::max<int64_t>(moved, 0)));
            if (moved < 0) gone_ = true;
            if (moved <= 0) return;
            size_t at = 0;
            while (in_.size() - at >= sizeof(RecordHeader)) {
                RecordHeader header;
                std::memcpy(&header, in_.data() + at, sizeof header);
                if (header.sum != sum_of(header) || header.bytes == 0 || header.bytes > kRecord) {
                    damaged_ = true;  // or this is no peer that emulates a link
                    return;
                }
                const size_t n = header.bytes;
                if (in_.size() - at < sizeof header + n) break;
                const auto* payload = in_.data() + at + sizeof header;
                free_at_ = std::max(free_at_, std::min(header.sent, now())) +
                           static_cast<double>(n) / bytes_per_s_;
                held_.push_back({free_at_ + latency_, {payload, payload + n}, 0});
                held_bytes_ += n;
                at += sizeof header + n;
            }
            in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(at));
        }
    }

    const std::unique_ptr<Transport> inner_;
    const double latency_, bytes_per_s_;
    std::vector<uint8_t> out_, in_;
    size_t sent_ = 0;  // of out_
    std::deque<Record> held_;
    size_t held_bytes_ = 0;
    double free_at_ = 0;  // when the link has carried all that was sent so far
    bool gone_ = false, damaged_ = false;
};

}  // namespace

std::unique_ptr<Transport> emulated_transport(std::unique_ptr<Transport> inner, double latency,
                                              double bytes_per_s) {
    return std::make_unique<EmulatedTransport>(std::move(inner), latency, bytes_per_s);
}

}  // namespace bw
