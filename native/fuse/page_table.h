/**
 * Where the pages of one image lie in memory, by number. Open addressing: what is to be known of a page is in one place, in one line
 * of the processor's cache, and a page that comes or goes allocates nothing. Eight pages that follow each other lie side by side.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fuse/kernel.h"

namespace iserfs::fuse {

/** Numbers of pages are below 2^52: those of all bytes that there can be. */
class PageTable {
 public:
  /** The bytes of `page` that lie in memory, from its start; empty where there are none. */
  std::span<const std::byte> find(std::uint64_t page) const noexcept;
  /** `bytes`: 1 to `pageLength`. Whether there were others. */
  bool set(std::uint64_t page, std::span<const std::byte> bytes);
  /** Forgets pages from `first` up to `end`, which is left out. */
  void erase(std::uint64_t first, std::uint64_t end);
  void clear() noexcept;

 private:
  /** Free where `memory` is null. */
  struct Place {
    /** With the length, less one, in the bits below. */
    std::uint64_t pageAndLength = 0;
    const std::byte* memory = nullptr;

    std::uint64_t page() const noexcept { return pageAndLength / pageLength; }
  };

  std::size_t homeOf(std::uint64_t page) const noexcept;
  /** The place that has `page`, or else the free one where it would be put. There is a free one. */
  std::size_t placeOf(std::uint64_t page) const noexcept;
  void eraseOne(std::uint64_t page) noexcept;
  /** Has so many places from now on, and forgets pages from `first` up to `end`. */
  void rebuild(std::size_t places, std::uint64_t first = 0, std::uint64_t end = 0);

  /** None, or a power of two, at least twice as many as are in use. */
  std::vector<Place> places_;
  std::size_t used_ = 0;
};

}  // namespace iserfs::fuse
