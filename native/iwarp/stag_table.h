/**
 * What one connection's peer may reach. Each queue pair has a table of its own, so a tag of another connection means nothing here. A
 * tag is slot << 8 | generation, both from a random start: a tag that was taken back stays unknown until its slot has been
 * used 255 times more. Slots are reused in the order in which they became free.
 *
 * Addresses are opaque offsets, no pointers: each slot has 4 GiB of its own, so the address of one entry with the tag of another is
 * out of bounds.
 *
 * Not thread-safe: the queue pair has a lock around it.
 */
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "provider.h"

namespace iserfs::rdma::iwarp {

enum class TagRight : std::uint8_t {
  remoteWrite,
  remoteRead,
  /** Where the response to a Read of ours goes, and nothing else of the peer's. */
  readSink,
};

enum class TagFault : std::uint8_t { none, unknown, access, bounds, wrap };

class StagTable {
 public:
  struct Entry {
    Segment segment;
    TagRight right = TagRight::remoteWrite;
    std::uint8_t generation = 0;
    bool inForce = false;
    /** The receiver is placing a segment here. */
    bool isPlacing = false;
    /** Read Responses out of here that have not all been sent. */
    std::uint32_t readers = 0;
  };

  struct Lookup {
    TagFault fault = TagFault::none;
    Entry* entry = nullptr;
    /** Of the first byte, within the entry's segment. */
    std::uint32_t offset = 0;
  };

  /** `capacity`: 1 to 2^20 entries. `seed`: any number; where slots and generations begin. */
  StagTable(std::uint32_t capacity, std::uint64_t seed);

  /** Throws std::length_error where all entries are in use. Never returns 0. */
  std::uint32_t insert(const Segment& segment, TagRight right);
  /** Of an entry's first byte: below 2^53. */
  std::uint64_t addressOf(std::uint32_t tag) const noexcept;

  /** Whether the peer may do that: `length` bytes from `address` on. */
  Lookup check(std::uint32_t tag, std::uint64_t address, std::uint32_t length, TagRight right) noexcept;
  /** The entry, also while it is being taken back; null where there is none. */
  Entry* find(std::uint32_t tag) noexcept;
  /** Frees the slot and lets go of the memory. Ignores an unknown tag. */
  void erase(std::uint32_t tag) noexcept;
  void clear() noexcept;

  std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(entries_.size() - free_.size()); }

 private:
  std::uint32_t indexOf(std::uint32_t tag) const noexcept;

  std::uint32_t firstSlot_;
  std::vector<Entry> entries_;
  std::vector<bool> isUsed_;
  std::deque<std::uint32_t> free_;
};

}  // namespace iserfs::rdma::iwarp
