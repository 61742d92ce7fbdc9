// What the core asks of the operating system that systems answer differently: a place for threads,
// large pages, features of Arm processors. Linux and macOS; elsewhere nothing is asked for.
#pragma once
#include <cstddef>

namespace bw {

// Says where the calling thread is to run. Linux pins it to the processor. macOS pins nothing on
// Apple silicon: there the thread asks for fast cores, by its quality of service.
void place_thread(int cpu);

// Asks for huge pages under untouched memory, where the system has such a switch. macOS has none;
// its pages are 16 KB.
void ask_huge_pages(void* memory, size_t bytes);

// Whether this processor has Arm's instructions for CRC-32C; false where nobody says.
bool has_arm_crc32();

}  // namespace bw
