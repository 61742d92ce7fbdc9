// Wire: how sums on the grid and rows of activations are written in a message (docs/numerics.md,
// section 10). Knows values and bytes; knows no nodes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bw {

// `exact` loses nothing; the others round what is sent.
enum class WireFormat : int { exact = 0, bf16 = 1, q8 = 2 };

constexpr int kBlock = 64;  // grid values that share a width; a row's last block may be short

// The blocks of some rows of grid values.
struct Blocks {
    int rows, width;  // width in values

    int per_row() const { return (width + kBlock - 1) / kBlock; }
    int count() const { return rows * per_row(); }  // fits: executor/check.h
    // Decoding has one row, and divisions would be felt there.
    int row(int block) const { return rows == 1 ? 0 : block / per_row(); }
    int column(int block) const { return (rows == 1 ? block : block % per_row()) * kBlock; }
    int size(int block) const {
        const int left = width - column(block);
        return left < kBlock ? left : kBlock;
    }
};

// A message holds a tag for each block, padded to 8 bytes, then the blocks. Tags: 4 and 8 are
// int32 and int64 values; 2 and 1 are bf16 and q8.
inline size_t tag_bytes(size_t blocks) { return (blocks + 7) / 8 * 8; }
int wire_tag(WireFormat format);
// Whether blocks of this tag may come in a message of this format.
bool tag_fits(WireFormat format, int tag);
size_t block_bytes(int tag, int size);
// Bytes of blocks [from, to) with one tag.
size_t blocks_bytes(const Blocks& blocks, int tag, int from, int to);
// Bytes of a message of that many rows at most, whatever its format.
size_t most_message_bytes(int rows, int width);

// Writes a block of the format's tag and rounds the values as the reader will see them. False
// where int32 is too narrow: then nothing of what was written counts.
bool encode_block(WireFormat format, int64_t* values, int size, uint8_t* out);
void encode_wide(const int64_t* values, int size, uint8_t* out);
// Reads a block into `values`, or adds it to them. False where a number is beyond any sum.
bool decode_block(int tag, const uint8_t* in, int size, int64_t* values, bool add);

// Rows of float32 activations.
size_t row_bytes(WireFormat format, int width);
// False where a value is not finite and the format can't tell.
bool encode_row(WireFormat format, const float* values, int width, uint8_t* out);
void decode_row(WireFormat format, const uint8_t* in, int width, float* values);

}  // namespace bw
