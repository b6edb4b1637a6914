#include "fuse/page_table.h"

#include <bit>
#include <utility>

namespace iserfs::fuse {

namespace {

constexpr std::size_t fewestPlaces = 64;
/** Fewer than one place in so many in use: half of the places are enough. */
constexpr std::size_t sparse = 8;
/** Pages that lie side by side. */
constexpr std::uint64_t groupLength = 8;
/** 2^64 over the golden ratio: neighbours are far apart afterwards. */
constexpr std::uint64_t scatter = 0x9e37'79b9'7f4a'7c15;

}  // namespace

std::span<const std::byte> PageTable::find(std::uint64_t page) const noexcept {
  if (used_ == 0) return {};
  const auto& [pageAndLength, memory] = places_[placeOf(page)];
  if (memory == nullptr) return {};
  return {memory, pageAndLength % pageLength + 1};
}

bool PageTable::set(std::uint64_t page, std::span<const std::byte> bytes) {
  if ((used_ + 1) * 2 > places_.size()) rebuild(places_.empty() ? fewestPlaces : places_.size() * 2);
  auto& place = places_[placeOf(page)];
  const bool hasReplaced = place.memory != nullptr;
  if (!hasReplaced) used_++;
  place = {.pageAndLength = page * pageLength + (bytes.size() - 1), .memory = bytes.data()};
  return hasReplaced;
}

void PageTable::erase(std::uint64_t first, std::uint64_t end) {
  if (used_ == 0 || first >= end) return;
  if (end - first < places_.size()) {
    // From the last to the first: what follows one is free by then, so that little has to move up.
    for (auto page = end; page-- > first;) eraseOne(page);
  } else {
    rebuild(places_.size(), first, end);
  }
  auto places = places_.size();
  while (places > fewestPlaces && used_ * sparse < places) places /= 2;
  if (places < places_.size()) rebuild(places);
}

void PageTable::clear() noexcept {
  places_.clear();
  places_.shrink_to_fit();
  used_ = 0;
}

std::size_t PageTable::homeOf(std::uint64_t page) const noexcept {
  const auto groups = places_.size() / groupLength;
  const auto group = static_cast<std::size_t>((page / groupLength * scatter) >> (64 - std::countr_zero(groups)));
  return group * groupLength + page % groupLength;
}

std::size_t PageTable::placeOf(std::uint64_t page) const noexcept {
  const auto mask = places_.size() - 1;
  auto place = homeOf(page);
  while (places_[place].memory != nullptr && places_[place].page() != page) place = (place + 1) & mask;
  return place;
}

/** What is found by way of its place moves up. */
void PageTable::eraseOne(std::uint64_t page) noexcept {
  const auto mask = places_.size() - 1;
  auto free = placeOf(page);
  if (places_[free].memory == nullptr) return;
  for (auto next = (free + 1) & mask; places_[next].memory != nullptr; next = (next + 1) & mask) {
    const auto home = homeOf(places_[next].page());
    if (((next - home) & mask) < ((next - free) & mask)) continue;
    places_[free] = places_[next];
    free = next;
  }
  places_[free] = {};
  used_--;
}

void PageTable::rebuild(std::size_t places, std::uint64_t first, std::uint64_t end) {
  const auto before = std::exchange(places_, std::vector<Place>(places));
  used_ = 0;
  for (const auto& place : before) {
    if (place.memory == nullptr || (place.page() >= first && place.page() < end)) continue;
    places_[placeOf(place.page())] = place;
    used_++;
  }
}

}  // namespace iserfs::fuse
