// Takes values off bytes that somebody else made; both are little-endian, as all processors here
// are. What is asked for beyond their end is std::invalid_argument.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/text.h"

namespace bw {

class Cursor {
  public:
    // `what`: what the bytes are, for sentences.
    Cursor(const uint8_t* data, size_t size, const char* what)
        : data_(data), size_(size), what_(what) {}

    template <typename T>
    T take() {
        T value;
        std::memcpy(&value, bytes(sizeof value), sizeof value);
        return value;
    }
    // The next `count` bytes, where they are.
    const uint8_t* bytes(size_t count) {
        if (count > left()) ends();
        const uint8_t* at = data_ + at_;
        at_ += count;
        return at;
    }
    int number(int low, int high) {
        const auto value = take<int32_t>();
        if (value < low || value > high)
            throw std::invalid_argument(std::string(what_) + " holds " + std::to_string(value) +
                                        " where " + std::to_string(low) + " to " +
                                        std::to_string(high) + " makes sense");
        return value;
    }
    bool flag() { return number(0, 1) != 0; }
    // How many things of at least `each` bytes follow: no more than there is room for.
    size_t count(size_t each) {
        const auto value = take<uint32_t>();
        if (value > left() / each) ends();
        return value;
    }
    std::vector<int> ints() {
        std::vector<int> values(count(sizeof(int32_t)));
        for (int& value : values) value = take<int32_t>();
        return values;
    }
    std::string text(size_t longest) {
        const size_t length = count(1);
        return printable(reinterpret_cast<const char*>(bytes(length)), length, longest);
    }
    size_t left() const { return size_ - at_; }
    void expect_end() const {
        if (left() > 0) throw std::invalid_argument(std::string(what_) + " goes on after its end");
    }

  private:
    [[noreturn]] void ends() const {
        throw std::invalid_argument(std::string(what_) + " ends too early");
    }

    const uint8_t* data_;
    size_t size_, at_ = 0;
    const char* what_;
};

}  // namespace bw
