/**
 * The work requests of a connection that were posted and have not completed. So each completes exactly once towards JavaScript,
 * whatever a provider does with a request that is posted while it ends the connection.
 */
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "provider/provider.h"

namespace iserfs::addon {

/** Thread: JavaScript, throughout. */
class Outstanding {
 public:
  void add(rdma::Opcode opcode, std::uint32_t workRequestId, std::uint32_t length) {
    requests_.emplace(Key{opcode, workRequestId}, length);
  }

  /** False where there is no such request. */
  bool remove(rdma::Opcode opcode, std::uint32_t workRequestId) {
    const auto found = requests_.find(Key{opcode, workRequestId});
    if (found == requests_.end()) return false;
    requests_.erase(found);
    return true;
  }

  /** Those that are left, as flushed. */
  std::vector<rdma::Completion> flush() {
    std::vector<rdma::Completion> completions;
    completions.reserve(requests_.size());
    for (const auto& [key, length] : requests_) {
      completions.push_back({.workRequestId = key.workRequestId, .opcode = key.opcode, .status = rdma::Status::flushed, .byteLength = length});
    }
    requests_.clear();
    return completions;
  }

 private:
  struct Key {
    rdma::Opcode opcode;
    std::uint32_t workRequestId;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const noexcept {
      return std::hash<std::uint64_t>{}(static_cast<std::uint64_t>(key.opcode) << 32 | key.workRequestId);
    }
  };

  /** Nothing forbids two requests of the same number. */
  std::unordered_multimap<Key, std::uint32_t, Hash> requests_;
};

}  // namespace iserfs::addon
