// Zeroed<T>: an array whose pages the system gives when they are first written, not before.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace bw {

template <typename T>
class Zeroed {
  public:
    Zeroed() = default;
    explicit Zeroed(size_t count)
        : data_(static_cast<T*>(std::calloc(count ? count : 1, sizeof(T)))), size_(count) {
        if (!data_) throw std::bad_alloc();
    }
    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    T* begin() { return data_.get(); }
    T& operator[](size_t i) { return data_.get()[i]; }
    size_t size() const { return size_; }

  private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> data_;
    size_t size_ = 0;
};

}  // namespace bw
