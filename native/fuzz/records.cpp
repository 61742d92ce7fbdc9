// Sealed records that somebody does something to on their way: what is handed out is the beginning
// of what was sent, whatever is done, and in whatever pieces it comes.
#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "exchange/transport.h"
#include "fuzz/run.h"

namespace bw::fuzz {

namespace {

using Bytes = std::vector<uint8_t>;

// One direction of a link in memory: each send() is a record, kept apart until the reader takes it.
class Pipe final : public Transport {
  public:
    Pipe(Bytes& stream, std::vector<Bytes>& records, Random random, bool reading)
        : stream_(stream), records_(records), random_(random), reading_(reading) {}

    int64_t send(const void* data, size_t bytes) override {
        const auto* from = static_cast<const uint8_t*>(data);
        records_.emplace_back(from, from + bytes);
        return static_cast<int64_t>(bytes);
    }
    int64_t receive(void* data, size_t bytes) override {
        if (!reading_ || at_ == stream_.size()) return kGone;
        if (random_.chance(10)) return 0;
        size_t n = std::min(bytes, stream_.size() - at_);
        if (random_.chance(50)) n = std::min(n, random_.below(60) + 1);
        std::copy_n(stream_.begin() + static_cast<std::ptrdiff_t>(at_), n,
                    static_cast<uint8_t*>(data));
        at_ += n;
        return static_cast<int64_t>(n);
    }

  private:
    Bytes& stream_;
    std::vector<Bytes>& records_;
    Random random_;
    const bool reading_;
    size_t at_ = 0;
};

Bytes random_bytes(Random& random, size_t count) {
    Bytes bytes(count);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
    return bytes;
}

// True where the stream is another one now.
bool alter(Random& random, std::vector<Bytes>& records, const std::vector<Bytes>& others,
           Bytes& stream) {
    const Bytes before = stream;
    const size_t which = random.below(records.size());
    auto flat = [&] {
        stream.clear();
        for (const Bytes& one : records) stream.insert(stream.end(), one.begin(), one.end());
    };
    switch (random.between(0, 9)) {
        case 0:
            return false;
        case 1:
            records.insert(records.begin() + static_cast<std::ptrdiff_t>(random.below(which + 1)),
                           Bytes(records[which]));
            flat();
            break;
        case 2:
            records.erase(records.begin() + static_cast<std::ptrdiff_t>(which));
            flat();
            break;
        case 3:
            std::swap(records[which], records[random.below(records.size())]);
            flat();
            break;
        case 4:  // of the other direction, or of another link
            records[which] = others[random.below(others.size())];
            flat();
            break;
        case 5:
            stream.resize(random.below(stream.size()));
            break;
        case 6: {
            const Bytes more = random_bytes(random, random.below(100) + 1);
            const auto place = static_cast<std::ptrdiff_t>(random.below(stream.size() + 1));
            stream.insert(stream.begin() + place, more.begin(), more.end());
            break;
        }
        case 7: {
            const size_t from = random.below(stream.size());
            const size_t count = std::min(stream.size() - from, random.below(40) + 1);
            const auto begin = stream.begin() + static_cast<std::ptrdiff_t>(from);
            stream.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
            break;
        }
        case 8:
            stream = random_bytes(random, stream.size());
            break;
        default:
            for (int turn = random.pick({1, 1, 2, 8}); turn > 0; turn--)
                stream[random.below(stream.size())] ^= static_cast<uint8_t>(1u << random.below(8));
    }
    return stream != before;
}

std::vector<Bytes> seal(Random& random, const SealedLink& link, const Bytes& text,
                        const std::vector<size_t>& pieces) {
    std::vector<Bytes> records;
    Bytes nothing;
    const auto sealed =
        sealed_transport(std::make_unique<Pipe>(nothing, records, random, false), link);
    size_t at = 0;
    for (size_t piece : pieces)
        for (size_t left = piece; left > 0;) {
            const int64_t moved = sealed->send(text.data() + at, left);
            if (moved <= 0) throw Wrong{"a pipe that takes everything did not"};
            at += static_cast<size_t>(moved);
            left -= static_cast<size_t>(moved);
        }
    return records;
}

std::string run(Random& random) {
    const Bytes key = random_bytes(random, kKeyBytes), other = random_bytes(random, kKeyBytes);
    const Cipher cipher = random.pick({Cipher::aes_256_gcm, Cipher::chacha20_poly1305});
    const auto renewed = random.pick<uint64_t>({1, 2, 3, 10, uint64_t{1} << 22});
    std::vector<size_t> pieces(random.below(6) + 1);
    size_t size = 0;
    for (size_t& piece : pieces) {
        piece = random.chance(10) ? random.below(40000) + 1 : random.below(200) + 1;
        size += piece;
    }
    const Bytes text = random_bytes(random, size);
    std::vector<Bytes> records =
        seal(random, {cipher, key.data(), other.data(), renewed}, text, pieces);
    const std::vector<Bytes> others =
        seal(random, {cipher, other.data(), key.data(), renewed}, text, pieces);
    Bytes stream;
    for (const Bytes& one : records) stream.insert(stream.end(), one.begin(), one.end());
    const bool altered = alter(random, records, others, stream);

    std::vector<Bytes> unused;
    const auto opened = sealed_transport(std::make_unique<Pipe>(stream, unused, random, true),
                                         SealedLink{cipher, other.data(), key.data(), renewed});
    Bytes got;
    int64_t moved = 0;
    while (moved >= 0) {
        Bytes room(random.chance(20) ? random.below(30) + 1 : 33000);
        moved = opened->receive(room.data(), room.size());
        if (moved > static_cast<int64_t>(room.size())) throw Wrong{"more than there was room for"};
        if (moved > 0) got.insert(got.end(), room.begin(), room.begin() + moved);
    }
    if (got.size() > text.size() || !std::equal(got.begin(), got.end(), text.begin()))
        throw Wrong{"bytes that nobody sent"};
    const bool whole = got.size() == text.size();
    if (!altered && (!whole || moved != kGone)) throw Wrong{"unaltered, but refused"};
    if (!altered) return "accepted: whole";
    if (moved == kTampered) return whole ? "right, and then: tampered" : "refused: tampered";
    return whole ? "right, and then: gone" : "refused: cut short";
}

}  // namespace

Input altered_records(const Plan&) {
    return [](Random& random) {
        if (!find_libcrypto()) throw Wrong{"there is no libcrypto"};
        return run(random);
    };
}

}  // namespace bw::fuzz
