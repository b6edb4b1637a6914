/** Requests that JavaScript has been told of and has not answered, by a number that is not given again soon: each is answered once. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace iserfs::fuse_addon {

/** Thread: JavaScript, throughout. */
class Pending {
 public:
  struct Request {
    std::uint64_t unique = 0;
    std::uint32_t opcode = 0;
  };

  std::uint32_t add(Request request) {
    std::uint32_t place = 0;
    if (free_.empty()) {
      place = static_cast<std::uint32_t>(entries_.size());
      entries_.emplace_back();
    } else {
      place = free_.back();
      free_.pop_back();
    }
    auto& entry = entries_[place];
    entry.request = request;
    entry.isUsed = true;
    return place | entry.generation << placeBits;
  }

  /** Nothing where it was taken before, or never was. */
  std::optional<Request> take(std::uint32_t token) {
    const auto place = token & ((1U << placeBits) - 1);
    if (place >= entries_.size()) return std::nullopt;
    auto& entry = entries_[place];
    if (!entry.isUsed || entry.generation != token >> placeBits) return std::nullopt;
    entry.isUsed = false;
    entry.generation = (entry.generation + 1) & ((1U << (32 - placeBits)) - 1);
    free_.push_back(place);
    return entry.request;
  }

  /** The number of the request that the kernel calls `unique`. */
  std::optional<std::uint32_t> find(std::uint64_t unique) const {
    for (std::uint32_t place = 0; place < entries_.size(); place++) {
      const auto& entry = entries_[place];
      if (entry.isUsed && entry.request.unique == unique) return place | entry.generation << placeBits;
    }
    return std::nullopt;
  }

  std::vector<Request> takeAll() {
    std::vector<Request> requests;
    for (const auto& entry : entries_) {
      if (entry.isUsed) requests.push_back(entry.request);
    }
    entries_.clear();
    free_.clear();
    return requests;
  }

  std::size_t count() const { return entries_.size() - free_.size(); }

 private:
  static constexpr unsigned placeBits = 20;

  struct Entry {
    Request request;
    std::uint32_t generation = 0;
    bool isUsed = false;
  };

  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;
};

}  // namespace iserfs::fuse_addon
