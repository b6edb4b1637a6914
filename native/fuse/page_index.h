/**
 * Which pages of which images may be answered from memory, and where they lie: what JavaScript shows and hides, and what any thread
 * that reads requests may look up. Memory belongs to who shows it; `hide` returns when nobody reads it any more. Who reads a page holds
 * no lock meanwhile, but says what range it reads.
 */
#pragma once

#include <sys/uio.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "fuse/kernel.h"
#include "fuse/page_table.h"

namespace iserfs::fuse {

class PageIndex {
 public:
  /** A read under way. Its memory stays until its end. */
  class Reading {
   public:
    Reading() = default;
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    ~Reading() { end(); }
    void end() noexcept;

   private:
    friend class PageIndex;
    PageIndex* index_ = nullptr;
    std::uint64_t inode_ = 0;
    std::uint64_t start_ = 0;
    std::uint64_t end_ = 0;
  };

  /** Bytes of the image from now on: reads are cut there. What was shown is forgotten where the size is another. Any thread. */
  void setSize(std::uint64_t inode, std::uint64_t size);
  /** Forgets the image and all that was shown of it. Any thread, but not one that reads. */
  void drop(std::uint64_t inode);
  /**
   * `offset` is a multiple of the page length; of the last page there may be a part. Waits for who reads what was there before. Any
   * thread, but not one that reads.
   */
  void show(std::uint64_t inode, std::uint64_t offset, std::span<const std::byte> bytes);
  /** Pages that the range touches are not looked up any more, and not read, when it returns. Any thread, but not one that reads. */
  void hide(std::uint64_t inode, std::uint64_t offset, std::uint64_t length);

  /**
   * Begins to read up to `length` bytes, at least one: false where the range is not all shown, or begins behind the end. `pieces` is
   * where they lie, in order. Any thread.
   */
  bool begin(std::uint64_t inode, std::uint64_t offset, std::uint64_t length, std::vector<iovec>& pieces, Reading& reading);

  /** Offsets of reads that were answered, those of the last call left out; the newest, where there is no room for all. Any thread. */
  std::size_t takeHits(std::uint64_t inode, std::span<double> offsets);
  /** Reads that were answered so far. Any thread. */
  std::uint64_t hits(std::uint64_t inode) const;

 private:
  static constexpr std::size_t rememberedHits = 1024;

  struct Image {
    std::uint64_t size = 0;
    PageTable pages;
    std::uint64_t hits = 0;
    std::vector<std::uint64_t> recent;
    std::size_t oldest = 0;
  };

  // With the lock held.
  void waitForReaders(std::unique_lock<std::mutex>& lock, std::uint64_t inode, std::uint64_t start, std::uint64_t end);
  static void note(Image& image, std::uint64_t offset);

  mutable std::mutex mutex_;
  std::condition_variable readerLeft_;
  std::unordered_map<std::uint64_t, Image> images_;
  std::vector<const Reading*> readers_;
};

}  // namespace iserfs::fuse
