// What is used of OpenSSL's libcrypto, opened while the program runs: nobody needs its headers to
// build, nor the library for nodes of one machine. Versions 1.1 and 3 have all of it alike.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace bw {

constexpr size_t kKeyBytes = 32, kTagBytes = 16, kNonceBytes = 12;

// Opens the library of that name, unless one is open. False where there is none, or it lacks
// something.
bool load_libcrypto(const char* name);
// Opens one of the names that systems give it.
bool find_libcrypto();

// Whether the processor has instructions for AES and for the sums of GCM.
bool has_aes();

enum class Cipher { aes_256_gcm, chacha20_poly1305 };
// Throws std::invalid_argument.
Cipher cipher_of(const std::string& name);

// Seals, or opens, under one key at a time. Throws std::runtime_error where the library is not open
// or fails at what cannot fail.
class Aead {
  public:
    Aead(Cipher cipher, bool sealing, const uint8_t* key);
    ~Aead();
    Aead(const Aead&) = delete;
    Aead& operator=(const Aead&) = delete;

    void set_key(const uint8_t* key);
    // Writes the sealed bytes and, behind them, the tag.
    void seal(const uint8_t* nonce, const uint8_t* plain, size_t bytes, uint8_t* sealed);
    // `bytes` without the tag behind them. False where they are not what was sealed: then `plain`
    // holds nothing to be looked at.
    bool open(const uint8_t* nonce, const uint8_t* sealed, size_t bytes, uint8_t* plain);

  private:
    const bool sealing_;
    void* context_;
};

}  // namespace bw
