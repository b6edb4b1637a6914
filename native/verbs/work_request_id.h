/** What the 64 bits that come back with a completion say: the kind of request, and its place in the queue's bookkeeping. */
#pragma once

#include <cstdint>
#include <utility>

#include "verbs/failures.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

constexpr std::uint64_t makeWorkRequestId(WorkKind kind, std::uint32_t index) noexcept { return static_cast<std::uint64_t>(kind) << 32 | index; }

constexpr std::pair<WorkKind, std::uint32_t> splitWorkRequestId(std::uint64_t id) noexcept {
  return {static_cast<WorkKind>(id >> 32), static_cast<std::uint32_t>(id)};
}

}  // namespace iserfs::rdma::verbs

#endif
