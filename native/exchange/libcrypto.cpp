#include "exchange/libcrypto.h"

#include <dlfcn.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <atomic>
#include <mutex>
#include <stdexcept>

namespace bw {

namespace {

// EVP_CTRL_AEAD_*, the same in all versions.
constexpr int kGetTag = 0x10, kSetTag = 0x11;

using Init = int (*)(void*, const void*, void*, const unsigned char*, const unsigned char*);
using Update = int (*)(void*, unsigned char*, int*, const unsigned char*, int);
using Final = int (*)(void*, unsigned char*, int*);

struct Library {
    void* (*new_context)();
    void (*free_context)(void*);
    int (*control)(void*, int, int, void*);
    const void* (*aes_256_gcm)();
    const void* (*chacha20_poly1305)();
    Init encrypt_init, decrypt_init;
    Update encrypt, decrypt;
    Final encrypt_final, decrypt_final;
};

Library library;
std::atomic<bool> loaded{false};
std::mutex loading;

template <class F>
bool find(void* handle, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    return function != nullptr;
}

bool find_all(void* handle, Library& found) {
    return find(handle, "EVP_CIPHER_CTX_new", found.new_context) &&
           find(handle, "EVP_CIPHER_CTX_free", found.free_context) &&
           find(handle, "EVP_CIPHER_CTX_ctrl", found.control) &&
           find(handle, "EVP_aes_256_gcm", found.aes_256_gcm) &&
           find(handle, "EVP_chacha20_poly1305", found.chacha20_poly1305) &&
           find(handle, "EVP_EncryptInit_ex", found.encrypt_init) &&
           find(handle, "EVP_DecryptInit_ex", found.decrypt_init) &&
           find(handle, "EVP_EncryptUpdate", found.encrypt) &&
           find(handle, "EVP_DecryptUpdate", found.decrypt) &&
           find(handle, "EVP_EncryptFinal_ex", found.encrypt_final) &&
           find(handle, "EVP_DecryptFinal_ex", found.decrypt_final);
}

void must(bool done) {
    if (!done) throw std::runtime_error("libcrypto failed to encrypt");
}

}  // namespace

bool load_libcrypto(const char* name) {
    std::lock_guard<std::mutex> lock(loading);
    if (loaded.load()) return true;
    void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return false;
    Library found{};
    if (!find_all(handle, found)) {
        dlclose(handle);
        return false;
    }
    library = found;
    loaded.store(true);
    return true;
}

bool find_libcrypto() {
#if defined(__APPLE__)
    return load_libcrypto("/opt/homebrew/opt/openssl@3/lib/libcrypto.3.dylib") ||
           load_libcrypto("/usr/local/opt/openssl@3/lib/libcrypto.3.dylib");
#else
    return load_libcrypto("libcrypto.so.3") || load_libcrypto("libcrypto.so.1.1");
#endif
}

bool has_aes() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__) && defined(__linux__)
    constexpr unsigned long kAes = 1ul << 3, kPolynomials = 1ul << 4;  // HWCAP_AES, HWCAP_PMULL
    return (getauxval(AT_HWCAP) & (kAes | kPolynomials)) == (kAes | kPolynomials);
#elif defined(__aarch64__) && defined(__APPLE__)
    return true;
#else
    return false;
#endif
}

Cipher cipher_of(const std::string& name) {
    if (name == "aes-256-gcm") return Cipher::aes_256_gcm;
    if (name == "chacha20-poly1305") return Cipher::chacha20_poly1305;
    throw std::invalid_argument("ciphers are aes-256-gcm and chacha20-poly1305");
}

Aead::Aead(Cipher cipher, bool sealing, const uint8_t* key) : sealing_(sealing), context_(nullptr) {
    if (!loaded.load()) throw std::runtime_error("libcrypto has not been opened");
    context_ = library.new_context();
    const void* kind =
        cipher == Cipher::aes_256_gcm ? library.aes_256_gcm() : library.chacha20_poly1305();
    const Init init = sealing ? library.encrypt_init : library.decrypt_init;
    if (!context_ || init(context_, kind, nullptr, key, nullptr) != 1) {
        if (context_) library.free_context(context_);
        throw std::runtime_error("libcrypto failed to encrypt");
    }
}

Aead::~Aead() { library.free_context(context_); }

void Aead::set_key(const uint8_t* key) {
    const Init init = sealing_ ? library.encrypt_init : library.decrypt_init;
    must(init(context_, nullptr, nullptr, key, nullptr) == 1);
}

void Aead::seal(const uint8_t* nonce, const uint8_t* plain, size_t bytes, uint8_t* sealed) {
    int moved = 0;
    must(library.encrypt_init(context_, nullptr, nullptr, nullptr, nonce) == 1);
    must(library.encrypt(context_, sealed, &moved, plain, static_cast<int>(bytes)) == 1);
    must(library.encrypt_final(context_, sealed + moved, &moved) == 1);
    must(library.control(context_, kGetTag, kTagBytes, sealed + bytes) == 1);
}

bool Aead::open(const uint8_t* nonce, const uint8_t* sealed, size_t bytes, uint8_t* plain) {
    int moved = 0;
    uint8_t tag[kTagBytes];
    for (size_t i = 0; i < kTagBytes; i++) tag[i] = sealed[bytes + i];
    must(library.decrypt_init(context_, nullptr, nullptr, nullptr, nonce) == 1);
    must(library.control(context_, kSetTag, kTagBytes, tag) == 1);
    return library.decrypt(context_, plain, &moved, sealed, static_cast<int>(bytes)) == 1 &&
           library.decrypt_final(context_, plain + moved, &moved) == 1;
}

}  // namespace bw
