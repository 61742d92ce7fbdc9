#include "fuzz/altering_transport.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "core/clock.h"

namespace bw::fuzz {

namespace {

constexpr double kDripSeconds = 0.003;

using Bytes = std::vector<uint8_t>;

class AlteringTransport final : public Transport {
  public:
    AlteringTransport(std::unique_ptr<Transport> inner, Altered& altered, Random random)
        : inner_(std::move(inner)), altered_(altered), random_(random) {}

    int64_t send(const void* data, size_t bytes) override {
        if (!inner_) return kGone;
        const auto* from = static_cast<const uint8_t*>(data);
        if (altered_.records && altered_.how != Alteration::none &&
            altered_.how != Alteration::pieces && altered_.how < Alteration::flip_byte) {
            take_record({from, from + bytes});
            send_some();
            return static_cast<int64_t>(bytes);
        }
        in_.insert(in_.end(), from, from + bytes);
        take_frames();
        send_some();
        return static_cast<int64_t>(bytes);
    }
    int64_t receive(void* data, size_t bytes) override {
        send_some();
        return inner_ ? inner_->receive(data, bytes) : kGone;
    }
    bool flush() override {
        send_some();
        return out_.empty();
    }
    int descriptor() const override { return inner_ ? inner_->descriptor() : -1; }
    short prepare_wait(bool reading, bool writing) override {
        if (!inner_) return 0;
        const short events = inner_->prepare_wait(reading, writing || !out_.empty());
        return out_.empty() || !slow() ? events : static_cast<short>(0);
    }
    void finish_wait() override {
        if (inner_) inner_->finish_wait();
    }

  private:
    bool slow() const {
        return altered_.how == Alteration::pieces || altered_.how == Alteration::drip;
    }

    void take_frames() {
        if (altered_.how == Alteration::none || altered_.how == Alteration::pieces)
            return put(std::exchange(in_, {}));
        if (altered_.how >= Alteration::flip_byte) return take_bytes();
        while (in_.size() >= sizeof(FrameHeader)) {
            FrameHeader h;
            std::memcpy(&h, in_.data(), sizeof h);
            const size_t whole = sizeof h + h.bytes;
            if (in_.size() < whole) return;
            const auto end = in_.begin() + static_cast<std::ptrdiff_t>(whole);
            take_frame(h, {in_.begin(), end});
            in_.erase(in_.begin(), end);
        }
    }

    void take_frame(FrameHeader h, Bytes frame) {
        const bool work = h.kind == static_cast<uint16_t>(FrameKind::data) ||
                          h.kind == static_cast<uint16_t>(FrameKind::step);
        const bool chosen = !altered_.done && work != altered_.control && seen_++ == altered_.at;
        if (chosen && !fits(h)) {
            altered_.at++;  // the next such frame, then
        } else if (chosen) {
            altered_.done = true;
            altered_.work = work;
            return alter(h, std::move(frame));
        }
        put(frame);
        if (!held_.empty()) put(std::exchange(held_, {}));
    }
    // A record's first 32 bytes are what a frame's header is there: not all of it is length.
    void take_record(Bytes record) {
        FrameHeader h{};
        h.bytes = static_cast<uint32_t>(record.size() - std::min(record.size(), sizeof h));
        if (!altered_.done && seen_++ == altered_.at) {
            altered_.done = true;  // nobody need read it: it may be a goodbye
            return alter(h, std::move(record));
        }
        put(record);
        if (!held_.empty()) put(std::exchange(held_, {}));
    }
    bool fits(const FrameHeader& h) const {
        return altered_.how != Alteration::flip_payload || h.bytes > 0;
    }

    void alter(FrameHeader h, Bytes frame) {
        switch (altered_.how) {
            case Alteration::flip_header:
                return flip(frame, 0, sizeof h);
            case Alteration::flip_payload:
                return flip(frame, sizeof h, h.bytes);
            case Alteration::lie:
                return lie(h, frame);
            case Alteration::drop:
                return;
            case Alteration::repeat:
                put(frame);
                return put(frame);
            case Alteration::swap:
                held_ = std::move(frame);
                return;
            case Alteration::garbage: {
                Bytes garbage(random_.pick<size_t>({1, 4, 32, 100, 3000}));
                for (uint8_t& byte : garbage)
                    byte = static_cast<uint8_t>(random_.chance(50) ? 0 : random_.bits());
                put(garbage);
                return put(frame);
            }
            case Alteration::cut:
            case Alteration::silence:
                frame.resize(random_.below(frame.size()));
                put(frame);
                ending_ = true;
                return;
            default:
                dripping_ = altered_.how == Alteration::drip;
                return put(frame);
        }
    }
    void flip(Bytes& frame, size_t from, size_t bytes) {
        const Bytes sent = frame;
        do
            for (int turn = random_.pick({1, 1, 2, 8}); turn > 0; turn--)
                flip_bit(frame[from + random_.below(bytes)]);
        while (frame == sent);
        put(frame);
    }
    void flip_bit(uint8_t& byte) { byte ^= static_cast<uint8_t>(1u << random_.below(8)); }

    void lie(FrameHeader h, Bytes& frame) {
        const auto number = static_cast<uint32_t>(
            random_.pick<int64_t>({0, 1, 2, 5, 0x7fff, 0x8000, 0xffff, 1 << 20, 0x7fffffff,
                                   0x80000000, 0xffffffff, h.bytes + 1, h.step + 1, h.op + 1}));
        const auto small = static_cast<uint16_t>(number);
        switch (random_.between(0, 6)) {
            case 0:
                h.kind = small;
                break;
            case 1:
                h.node = small;
                break;
            case 2:
                h.part = small;
                break;
            case 3:
                h.generation = number;
                break;
            case 4:
                h.step = number;
                break;
            case 5:
                h.op = number;
                break;
            default:
                h.bytes = number;
        }
        h.header_sum = header_sum(h);
        std::memcpy(frame.data(), &h, sizeof h);
        put(frame);
    }

    void take_bytes() {
        for (uint8_t byte : std::exchange(in_, {})) {
            const bool chosen = !altered_.done && seen_++ == altered_.at;
            altered_.done |= chosen;
            if (chosen && altered_.how == Alteration::drop_byte) continue;
            if (chosen && altered_.how == Alteration::repeat_byte) out_.push_back(byte);
            if (chosen && altered_.how == Alteration::flip_byte) flip_bit(byte);
            out_.push_back(byte);
        }
    }

    void put(const Bytes& bytes) {
        if (!ending_) out_.insert(out_.end(), bytes.begin(), bytes.end());
    }

    void send_some() {
        while (inner_ && !out_.empty()) {
            if (dripping_ && now() < next_drip_) return;
            next_drip_ = now() + kDripSeconds;
            const size_t most = dripping_                            ? 1
                                : altered_.how == Alteration::pieces ? 37
                                                                     : out_.size();
            const size_t count = std::min(most, out_.size());
            const Bytes some(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(count));
            const int64_t moved = inner_->send(some.data(), some.size());
            if (moved <= 0) return;
            out_.erase(out_.begin(), out_.begin() + moved);
        }
        if (out_.empty() && ending_ && altered_.how == Alteration::cut) inner_.reset();
    }

    std::unique_ptr<Transport> inner_;
    Altered& altered_;
    Random random_;
    Bytes in_, held_;
    std::deque<uint8_t> out_;
    uint64_t seen_ = 0;  // frames of the chosen kind, or bytes
    bool dripping_ = false, ending_ = false;
    double next_drip_ = 0;
};

}  // namespace

std::unique_ptr<Transport> altering_transport(std::unique_ptr<Transport> inner, Altered& altered,
                                              Random random) {
    return std::make_unique<AlteringTransport>(std::move(inner), altered, random);
}

}  // namespace bw::fuzz
