#include "fuse/page_index.h"

#include <algorithm>

namespace iserfs::fuse {

namespace {

std::uint64_t endOf(std::uint64_t offset, std::uint64_t length) { return length > UINT64_MAX - offset ? UINT64_MAX : offset + length; }

/** Pages up to and with the one that holds the byte before `end`. */
std::uint64_t pagesUpTo(std::uint64_t end) { return end / pageLength + (end % pageLength == 0 ? 0 : 1); }

}  // namespace

void PageIndex::Reading::end() noexcept {
  if (index_ == nullptr) return;
  {
    const std::lock_guard lock(index_->mutex_);
    std::erase(index_->readers_, this);
  }
  index_->readerLeft_.notify_all();
  index_ = nullptr;
}

void PageIndex::setSize(std::uint64_t inode, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  auto& image = images_[inode];
  if (image.size == size) return;
  // The last page may have been a part of one.
  if (image.size != 0) image.blocks.clear();
  image.size = size;
}

void PageIndex::drop(std::uint64_t inode) {
  std::unique_lock lock(mutex_);
  images_.erase(inode);
  waitForReaders(lock, inode, 0, UINT64_MAX);
}

void PageIndex::show(std::uint64_t inode, std::uint64_t offset, std::span<const std::byte> bytes) {
  std::unique_lock lock(mutex_);
  auto& image = images_[inode];
  const auto first = offset / pageLength;
  const auto end = pagesUpTo(endOf(offset, bytes.size()));
  bool hasReplaced = false;
  for (auto page = first; page < end;) {
    auto& block = image.blocks[page / pagesPerBlock];
    for (const auto blockEnd = (page / pagesPerBlock + 1) * pagesPerBlock; page < end && page < blockEnd; page++) {
      auto& entry = block.pages[page % pagesPerBlock];
      if (entry == nullptr) block.shown++;
      else hasReplaced = true;
      entry = bytes.data() + (page - first) * pageLength;
      block.lengths[page % pagesPerBlock] = static_cast<std::uint16_t>(std::min(pageLength, bytes.size() - (page - first) * pageLength));
    }
  }
  if (hasReplaced) waitForReaders(lock, inode, first * pageLength, end > UINT64_MAX / pageLength ? UINT64_MAX : end * pageLength);
}

void PageIndex::hide(std::uint64_t inode, std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  std::unique_lock lock(mutex_);
  const auto first = offset / pageLength;
  const auto end = pagesUpTo(endOf(offset, length));
  if (const auto found = images_.find(inode); found != images_.end()) forget(found->second, first, end);
  waitForReaders(lock, inode, first * pageLength, end > UINT64_MAX / pageLength ? UINT64_MAX : end * pageLength);
}

bool PageIndex::begin(std::uint64_t inode, std::uint64_t offset, std::uint64_t length, std::vector<iovec>& pieces, Reading& reading) {
  const std::lock_guard lock(mutex_);
  const auto found = images_.find(inode);
  if (found == images_.end() || offset >= found->second.size) return false;
  auto& image = found->second;
  const auto end = std::min(endOf(offset, length), image.size);
  if (end == offset) return false;
  const auto before = pieces.size();
  const Block* block = nullptr;
  for (auto at = offset; at < end;) {
    const auto page = at / pageLength;
    if (block == nullptr || page % pagesPerBlock == 0) {
      const auto foundBlock = image.blocks.find(page / pagesPerBlock);
      block = foundBlock == image.blocks.end() ? nullptr : &foundBlock->second;
    }
    const auto* memory = block == nullptr ? nullptr : block->pages[page % pagesPerBlock];
    const auto inPage = at % pageLength;
    const auto part = std::min(pageLength - inPage, end - at);
    if (memory == nullptr || inPage + part > block->lengths[page % pagesPerBlock]) {
      pieces.resize(before);
      return false;
    }
    // The kernel's structure has no const; a write to /dev/fuse does not change what it takes.
    auto* start = const_cast<std::byte*>(memory) + inPage;
    const bool continues = pieces.size() > before && static_cast<std::byte*>(pieces.back().iov_base) + pieces.back().iov_len == start;
    if (continues) pieces.back().iov_len += part;
    else pieces.push_back({.iov_base = start, .iov_len = part});
    at += part;
  }
  reading.index_ = this;
  reading.inode_ = inode;
  reading.start_ = offset;
  reading.end_ = end;
  readers_.push_back(&reading);
  note(image, offset);
  return true;
}

std::size_t PageIndex::takeHits(std::uint64_t inode, std::span<double> offsets) {
  const std::lock_guard lock(mutex_);
  const auto found = images_.find(inode);
  if (found == images_.end()) return 0;
  auto& [size, blocks, hits, recent, oldest] = found->second;
  const auto count = std::min(recent.size(), offsets.size());
  for (std::size_t i = 0; i < count; i++) {
    offsets[i] = static_cast<double>(recent[(oldest + recent.size() - count + i) % recent.size()]);
  }
  recent.clear();
  oldest = 0;
  return count;
}

std::uint64_t PageIndex::hits(std::uint64_t inode) const {
  const std::lock_guard lock(mutex_);
  const auto found = images_.find(inode);
  return found == images_.end() ? 0 : found->second.hits;
}

void PageIndex::waitForReaders(std::unique_lock<std::mutex>& lock, std::uint64_t inode, std::uint64_t start, std::uint64_t end) {
  readerLeft_.wait(lock, [&] {
    return std::none_of(readers_.begin(), readers_.end(), [&](const Reading* reading) {
      return reading->inode_ == inode && reading->start_ < end && start < reading->end_;
    });
  });
}

void PageIndex::forget(Image& image, std::uint64_t firstPage, std::uint64_t endPage) {
  const auto clear = [&image, firstPage, endPage](auto found) {
    auto& block = found->second;
    const auto start = found->first * pagesPerBlock;
    const auto from = std::max(start, firstPage) - start;
    const auto to = std::min(start + pagesPerBlock, endPage) - start;
    for (auto page = from; page < to; page++) {
      if (block.pages[page] == nullptr) continue;
      block.pages[page] = nullptr;
      block.shown--;
    }
    return block.shown == 0 ? image.blocks.erase(found) : std::next(found);
  };
  const auto firstBlock = firstPage / pagesPerBlock;
  const auto lastBlock = (endPage - 1) / pagesPerBlock;
  if (lastBlock - firstBlock >= image.blocks.size()) {
    for (auto block = image.blocks.begin(); block != image.blocks.end();) {
      block = block->first < firstBlock || block->first > lastBlock ? std::next(block) : clear(block);
    }
    return;
  }
  for (auto number = firstBlock; number <= lastBlock; number++) {
    if (const auto found = image.blocks.find(number); found != image.blocks.end()) clear(found);
  }
}

void PageIndex::note(Image& image, std::uint64_t offset) {
  image.hits++;
  if (image.recent.size() < rememberedHits) {
    image.recent.push_back(offset);
    return;
  }
  image.recent[image.oldest] = offset;
  image.oldest = (image.oldest + 1) % rememberedHits;
}

}  // namespace iserfs::fuse
