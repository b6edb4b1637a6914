#include "stag_table.h"

#include <stdexcept>

namespace iserfs::rdma::iwarp {

namespace {
constexpr std::uint32_t slotMask = 0xffffff;
constexpr unsigned addressBitsOfSlot = 32;
}  // namespace

StagTable::StagTable(std::uint32_t capacity, std::uint64_t seed)
    // From 1 on and without wrapping, so that no tag is 0.
    : firstSlot_(1 + static_cast<std::uint32_t>(seed % (slotMask - capacity))), entries_(capacity), isUsed_(capacity) {
  for (std::uint32_t index = 0; index < capacity; ++index) {
    // SplitMix64's mixing step: neighbours begin at unrelated generations.
    std::uint64_t mixed = seed + (index + 1) * 0x9e3779b97f4a7c15;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    entries_[index].generation = static_cast<std::uint8_t>(mixed >> 56);
    free_.push_back(index);
  }
}

std::uint32_t StagTable::insert(const Segment& segment, TagRight right) {
  if (free_.empty()) throw std::length_error("no more advertisements may be in force at a time");
  const std::uint32_t index = free_.front();
  free_.pop_front();
  isUsed_[index] = true;
  Entry& entry = entries_[index];
  entry.segment = segment;
  entry.right = right;
  ++entry.generation;
  entry.inForce = true;
  return (firstSlot_ + index) << 8 | entry.generation;
}

std::uint32_t StagTable::indexOf(std::uint32_t tag) const noexcept { return (tag >> 8) - firstSlot_; }

std::uint64_t StagTable::addressOf(std::uint32_t tag) const noexcept {
  return std::uint64_t{indexOf(tag) + 1} << addressBitsOfSlot;
}

StagTable::Entry* StagTable::find(std::uint32_t tag) noexcept {
  const std::uint32_t index = indexOf(tag);
  if (index >= entries_.size() || !isUsed_[index]) return nullptr;
  Entry& entry = entries_[index];
  return entry.generation == static_cast<std::uint8_t>(tag & 0xff) ? &entry : nullptr;
}

StagTable::Lookup StagTable::check(std::uint32_t tag, std::uint64_t address, std::uint32_t length, TagRight right) noexcept {
  Entry* entry = find(tag);
  if (entry == nullptr || !entry->inForce) return {TagFault::unknown};
  if (entry->right != right) return {TagFault::access};
  if (address + length < address) return {TagFault::wrap};
  const std::uint64_t base = addressOf(tag);
  const std::uint64_t end = base + entry->segment.length;
  if (address < base || address > end || length > end - address) return {TagFault::bounds};
  return {TagFault::none, entry, static_cast<std::uint32_t>(address - base)};
}

void StagTable::erase(std::uint32_t tag) noexcept {
  Entry* entry = find(tag);
  if (entry == nullptr) return;
  const std::uint32_t index = indexOf(tag);
  const std::uint8_t generation = entry->generation;
  *entry = Entry{};
  entry->generation = generation;
  isUsed_[index] = false;
  free_.push_back(index);
}

void StagTable::clear() noexcept {
  for (std::uint32_t index = 0; index < entries_.size(); ++index) {
    if (isUsed_[index]) erase((firstSlot_ + index) << 8 | entries_[index].generation);
  }
}

}  // namespace iserfs::rdma::iwarp
