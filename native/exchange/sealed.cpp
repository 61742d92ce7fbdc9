// A link that nobody without its keys can read or change: the bytes of a transport in sealed
// records, as src/bandweave/mesh/sealing.py has them.
//
// A record is its length (32-bit, little-endian), sealed, and as many bytes, sealed. The nonce of
// a seal is the number of seals before it, so what is repeated, left out or put in another order
// does not open. Nothing is handed out, and no length believed, before its tag was verified.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "core/clock.h"
#include "exchange/libcrypto.h"
#include "exchange/transport.h"

namespace bw {

namespace {

constexpr size_t kRecord = 17 << 10;  // 16 KB of numbers, their tags and a frame's header
constexpr size_t kSealedLength = sizeof(uint32_t) + kTagBytes;
constexpr size_t kReadAtOnce = 64 << 10;

// One direction's key, and how often it was used.
class Direction {
  public:
    Direction(Cipher cipher, bool sealing, const uint8_t* key, uint64_t seals_a_key)
        : cipher_(cipher), every_(seals_a_key), aead_(cipher, sealing, key) {
        std::memcpy(key_, key, kKeyBytes);
    }

    void seal(const uint8_t* plain, size_t bytes, uint8_t* sealed) {
        next();
        aead_.seal(nonce_, plain, bytes, sealed);
    }
    bool open(const uint8_t* sealed, size_t bytes, uint8_t* plain) {
        next();
        return aead_.open(nonce_, sealed, bytes, plain);
    }

  private:
    void next() {
        if (count_ > 0 && count_ % every_ == 0) renew();
        write_nonce(count_++);
    }
    // Noise's REKEY: the key seals 32 zeros under the last nonce of all.
    void renew() {
        uint8_t zeros[kKeyBytes] = {}, sealed[kKeyBytes + kTagBytes];
        Aead renewing(cipher_, true, key_);
        write_nonce(UINT64_MAX);
        renewing.seal(nonce_, zeros, kKeyBytes, sealed);
        std::memcpy(key_, sealed, kKeyBytes);
        aead_.set_key(key_);
    }
    // As Noise writes them: big-endian for AES, little-endian for ChaCha20.
    void write_nonce(uint64_t number) {
        for (int i = 0; i < 8; i++)
            nonce_[cipher_ == Cipher::aes_256_gcm ? 11 - i : 4 + i] =
                static_cast<uint8_t>(number >> (8 * i));
    }

    const Cipher cipher_;
    const uint64_t every_;
    Aead aead_;
    uint64_t count_ = 0;
    uint8_t key_[kKeyBytes], nonce_[kNonceBytes] = {};
};

class SealedTransport final : public Transport {
  public:
    SealedTransport(std::unique_ptr<Transport> inner, const SealedLink& link)
        : inner_(std::move(inner)),
          out_key_(link.cipher, true, link.send_key, link.seals_a_key),
          in_key_(link.cipher, false, link.receive_key, link.seals_a_key) {}

    int64_t send(const void* data, size_t bytes) override {
        if (!flush()) return gone_out_ ? kGone : 0;
        const double start = now();
        const size_t n = std::min(bytes, kRecord);
        uint8_t length[sizeof(uint32_t)];
        for (size_t i = 0; i < sizeof length; i++) length[i] = static_cast<uint8_t>(n >> (8 * i));
        out_key_.seal(length, sizeof length, out_.data());
        out_key_.seal(static_cast<const uint8_t*>(data), n, out_.data() + kSealedLength);
        to_send_ = kSealedLength + n + kTagBytes;
        sent_ = 0;
        sealing_ += now() - start;
        flush();
        return static_cast<int64_t>(n);
    }

    int64_t receive(void* data, size_t bytes) override {
        auto* to = static_cast<uint8_t*>(data);
        size_t given = take_opened(to, bytes);
        if (given < bytes && !broken_) given += take_sealed(to + given, bytes - given);
        if (given > 0) return static_cast<int64_t>(given);
        return broken_ ? kTampered : gone_in_ ? kGone : 0;
    }

    bool flush() override {
        while (sent_ < to_send_) {
            const int64_t moved = inner_->send(out_.data() + sent_, to_send_ - sent_);
            if (moved < 0) gone_out_ = true;
            if (moved <= 0) return false;
            sent_ += static_cast<size_t>(moved);
        }
        return !gone_out_ && inner_->flush();
    }

    // Tags say more than checksums.
    bool on_wire() const override { return false; }
    bool partial() const override { return begin_ != end_ || opening_ || inner_->partial(); }
    size_t wire_bytes(size_t sent) const override {
        return inner_->wire_bytes(kSealedLength + sent + kTagBytes);
    }
    double sealing_seconds() const override { return sealing_; }
    int descriptor() const override { return inner_->descriptor(); }
    short prepare_wait(bool reading, bool writing) override {
        const short events = inner_->prepare_wait(reading, writing || sent_ < to_send_);
        const bool there = taken_ < opened_.size() || end_ - begin_ >= wanted() || broken_;
        return reading && there ? static_cast<short>(0) : events;
    }
    void finish_wait() override { inner_->finish_wait(); }

  private:
    size_t take_opened(uint8_t* to, size_t most) {
        const size_t n = std::min(most, opened_.size() - taken_);
        if (n == 0) return 0;
        std::memcpy(to, opened_.data() + taken_, n);
        taken_ += n;
        return n;
    }

    // Opens what is there and fits, after one read where no piece is whole.
    size_t take_sealed(uint8_t* to, size_t most) {
        if (end_ - begin_ < wanted()) read();
        if (end_ - begin_ < wanted()) return 0;
        const double start = now();
        size_t given = 0;
        while (!broken_ && given < most && end_ - begin_ >= wanted()) {
            const uint8_t* piece = in_.data() + begin_;
            begin_ += wanted();
            if (!opening_) {
                open_length(piece);
                continue;
            }
            const size_t n = length_;
            opening_ = false;
            uint8_t* place = to + given;
            if (n > most - given) {
                opened_.resize(n);
                taken_ = 0;
                place = opened_.data();
            }
            broken_ = !in_key_.open(piece, n, place);
            if (broken_) {
                opened_.clear();
                taken_ = 0;
                break;
            }
            given += place == opened_.data() ? take_opened(to + given, most - given) : n;
        }
        sealing_ += now() - start;
        return given;
    }

    void open_length(const uint8_t* piece) {
        uint8_t length[sizeof(uint32_t)];
        broken_ = !in_key_.open(piece, sizeof length, length);
        if (broken_) return;
        length_ = 0;
        for (size_t i = 0; i < sizeof length; i++) length_ |= size_t{length[i]} << (8 * i);
        broken_ = length_ < 1 || length_ > kRecord;
        opening_ = !broken_;
    }

    size_t wanted() const { return opening_ ? length_ + kTagBytes : kSealedLength; }

    void read() {
        if (gone_in_) return;
        if (begin_ > 0) {
            std::memmove(in_.data(), in_.data() + begin_, end_ - begin_);
            end_ -= begin_;
            begin_ = 0;
        }
        const int64_t moved = inner_->receive(in_.data() + end_, in_.size() - end_);
        if (moved == kDamaged || moved == kTampered) broken_ = true;
        if (moved < 0) gone_in_ = true;
        if (moved > 0) end_ += static_cast<size_t>(moved);
    }

    const std::unique_ptr<Transport> inner_;
    Direction out_key_, in_key_;
    std::vector<uint8_t> out_ = std::vector<uint8_t>(kSealedLength + kRecord + kTagBytes);
    size_t sent_ = 0, to_send_ = 0;  // of out_: one record at most
    std::vector<uint8_t> in_ = std::vector<uint8_t>(kReadAtOnce);
    size_t begin_ = 0, end_ = 0;  // what of in_ is to be opened
    bool opening_ = false;        // the length of the record at begin_ is known: length_
    size_t length_ = 0;
    std::vector<uint8_t> opened_;  // what had no room where it was wanted
    size_t taken_ = 0;             // of opened_
    bool gone_out_ = false, gone_in_ = false, broken_ = false;
    double sealing_ = 0;
};

}  // namespace

std::unique_ptr<Transport> sealed_transport(std::unique_ptr<Transport> inner,
                                            const SealedLink& link) {
    return std::make_unique<SealedTransport>(std::move(inner), link);
}

}  // namespace bw
