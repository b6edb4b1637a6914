/**
 * Work requests that are posted and not completed: what they were, and the memory that they keep. Bookkeeping only; whoever holds it
 * holds the connection's lock.
 */
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "provider.h"
#include "verbs/device.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

/** One side of a queue pair: sends, writes and reads; or receives. */
class WorkQueue {
 public:
  struct Entry {
    std::uint32_t workRequestId = 0;
    Opcode opcode = Opcode::send;
    std::uint32_t length = 0;
    /** Kept until completion. */
    std::array<Segment, 2> segments;
    /** Where the sink of an RDMA Read needs a region of its own. */
    Region sink;
    /** Order of posting. */
    std::uint64_t sequence = 0;
    bool isPosted = false;
    /** The device did not take it: it completes as `failed`. */
    bool isRefused = false;
  };

  explicit WorkQueue(std::uint32_t depth) : entries_(depth) {
    free_.reserve(depth);
    for (std::uint32_t index = depth; index > 0; index--) free_.push_back(index - 1);
  }

  std::size_t posted() const noexcept { return entries_.size() - free_.size(); }

  /** Index of an entry to fill in. Throws std::length_error where the depth is used up. */
  std::uint32_t take();
  Entry& operator[](std::uint32_t index) { return entries_.at(index); }
  /** Completed: the caller gets what it held. */
  Entry release(std::uint32_t index);
  /** All that are left, oldest first. */
  std::vector<Entry> releaseAll();

 private:
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;
  std::uint64_t lastSequence_ = 0;
};

/** Throws std::out_of_range unless `segment` is within its arena. An empty one needs none. */
void requireWithinArena(const Segment& segment);

}  // namespace iserfs::rdma::verbs

#endif
