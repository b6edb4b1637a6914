/**
 * Page-aligned memory that providers move data in and out of. An arena lives as long as anything refers to it: JavaScript's
 * ArrayBuffer, a posted work request, an advertisement. So it is never unmapped under a transfer (I4), and no buffer needs to be
 * detached before that.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace iserfs::rdma {

/** Zeroed, page-aligned, private memory; whole huge pages, where the length is that of some and the system has them. */
class Arena {
 public:
  /** `length` bytes, rounded up to whole pages in memory. Throws std::bad_alloc. Any thread. */
  static std::shared_ptr<Arena> allocate(std::size_t length);

  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();

  std::byte* data() const noexcept { return data_; }
  /** As asked for. */
  std::size_t length() const noexcept { return length_; }
  /** Unique in the process, never used again: 1 and up. */
  std::uint32_t id() const noexcept { return id_; }

 private:
  Arena(std::byte* data, std::size_t length, std::size_t mapped) noexcept;

  std::byte* data_;
  std::size_t length_;
  std::size_t mapped_;
  std::uint32_t id_;
};

/** A range of an arena. Holding it keeps the arena. */
struct Segment {
  std::shared_ptr<Arena> arena;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;

  std::byte* data() const noexcept { return arena->data() + offset; }
};

}  // namespace iserfs::rdma
