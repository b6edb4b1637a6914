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
  if (image.size != 0) image.pages.clear();
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
  for (auto page = first; page < end; page++) {
    const auto rest = bytes.subspan((page - first) * pageLength);
    if (image.pages.set(page, rest.first(std::min(pageLength, rest.size())))) hasReplaced = true;
  }
  if (hasReplaced) waitForReaders(lock, inode, first * pageLength, end > UINT64_MAX / pageLength ? UINT64_MAX : end * pageLength);
}

void PageIndex::hide(std::uint64_t inode, std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  std::unique_lock lock(mutex_);
  const auto first = offset / pageLength;
  const auto end = pagesUpTo(endOf(offset, length));
  if (const auto found = images_.find(inode); found != images_.end()) found->second.pages.erase(first, end);
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
  for (auto at = offset; at < end;) {
    const auto page = image.pages.find(at / pageLength);
    const auto inPage = at % pageLength;
    const auto part = std::min(pageLength - inPage, end - at);
    if (inPage + part > page.size()) {
      pieces.resize(before);
      return false;
    }
    // The kernel's structure has no const; a write to /dev/fuse does not change what it takes.
    auto* start = const_cast<std::byte*>(page.data()) + inPage;
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
  auto& [size, pages, hits, recent, oldest] = found->second;
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
