// One row's part of content sums (kernels/content_sums.h). Integers only: the same on every
// variant.
#include <cstring>

#include "kernels/variant.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && !defined(BW_ISA_PORTABLE)
#include <arm_neon.h>
#endif

namespace bw::BW_ISA_NAME {

namespace {

constexpr size_t kStripe = 64;
constexpr uint64_t kStep = 0x9e3779b97f4a7c15ull;  // odd: the golden ratio's digits
// Where a row's keys start, before its own is mixed in: what splitmix64 makes of 1 to 8.
constexpr uint64_t kKeys[kContentLanes] = {
    0x910a2dec89025cc1ull, 0x975835de1c9756ceull, 0x1d0b14e4db018fedull, 0x6e73e372e2338acaull,
    0x63033b0ca389c35aull, 0xbd64a5d9adefe000ull, 0x63cbe1e459320dd7ull, 0x9e5651b0ef953636ull,
};

// Four sums, with the instructions that the loop below is made of.
#if defined(__AVX2__)
struct Sums {
    __m256i v;
    static Sums load(const void* p) { return {_mm256_loadu_si256(static_cast<const __m256i*>(p))}; }
    void store(uint64_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
    void add(const Sums& words, const Sums& keys) {
        const __m256i keyed = _mm256_xor_si256(words.v, keys.v);
        const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
        v = _mm256_add_epi64(v, _mm256_add_epi64(words.v, product));
    }
    void mix_in(uint64_t key) {
        v = _mm256_xor_si256(v, _mm256_set1_epi64x(static_cast<int64_t>(key)));
    }
    void step() { v = _mm256_add_epi64(v, _mm256_set1_epi64x(static_cast<int64_t>(kStep))); }
};
#elif defined(__ARM_NEON) && !defined(BW_ISA_PORTABLE)
struct Sums {
    uint64x2_t v[2];
    static Sums load(const void* p) {
        const auto* bytes = static_cast<const uint8_t*>(p);
        return {vreinterpretq_u64_u8(vld1q_u8(bytes)), vreinterpretq_u64_u8(vld1q_u8(bytes + 16))};
    }
    void store(uint64_t* p) const {
        vst1q_u64(p, v[0]);
        vst1q_u64(p + 2, v[1]);
    }
    void add(const Sums& words, const Sums& keys) {
        for (int i = 0; i < 2; i++) {
            const uint64x2_t keyed = veorq_u64(words.v[i], keys.v[i]);
            v[i] = vmlal_u32(vaddq_u64(v[i], words.v[i]), vmovn_u64(keyed), vshrn_n_u64(keyed, 32));
        }
    }
    void mix_in(uint64_t key) {
        for (uint64x2_t& word : v) word = veorq_u64(word, vdupq_n_u64(key));
    }
    void step() {
        for (uint64x2_t& word : v) word = vaddq_u64(word, vdupq_n_u64(kStep));
    }
};
#else
struct Sums {
    uint64_t v[4];
    static Sums load(const void* p) {
        Sums sums;
        std::memcpy(sums.v, p, sizeof sums.v);
        return sums;
    }
    void store(uint64_t* p) const { std::memcpy(p, v, sizeof v); }
    void add(const Sums& words, const Sums& keys) {
        for (int i = 0; i < 4; i++) {
            const uint64_t keyed = words.v[i] ^ keys.v[i];
            v[i] += words.v[i] + (keyed & 0xffffffffu) * (keyed >> 32);
        }
    }
    void mix_in(uint64_t key) {
        for (uint64_t& word : v) word ^= key;
    }
    void step() {
        for (uint64_t& word : v) word += kStep;
    }
};
#endif

}  // namespace

void content_row(const uint8_t* bytes, size_t count, size_t block, uint64_t row_key,
                 uint64_t* sums) {
    Sums first_low = Sums::load(kKeys), first_high = Sums::load(kKeys + 4);
    first_low.mix_in(row_key);
    first_high.mix_in(row_key);
    for (; count > 0; sums += kContentLanes) {
        Sums low = Sums::load(sums), high = Sums::load(sums + 4);
        Sums low_key = first_low, high_key = first_high;
        size_t left = count < block ? count : block;
        count -= left;
        for (; left >= kStripe; left -= kStripe, bytes += kStripe) {
            low.add(Sums::load(bytes), low_key);
            high.add(Sums::load(bytes + 32), high_key);
            low_key.step();
            high_key.step();
        }
        if (left > 0) {
            uint8_t rest[kStripe] = {};
            std::memcpy(rest, bytes, left);
            bytes += left;
            low.add(Sums::load(rest), low_key);
            high.add(Sums::load(rest + 32), high_key);
        }
        low.store(sums);
        high.store(sums + 4);
    }
}

}  // namespace bw::BW_ISA_NAME
