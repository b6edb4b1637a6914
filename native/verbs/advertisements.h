/**
 * What a connection has advertised to its peer: a memory window or a memory region for each, of exactly the bytes. Whoever holds
 * this holds the connection's lock.
 *
 * A window is bound by a work request ahead of whatever carries its tag. Windows that the peer invalidated are bound again; those
 * revoked from this side are given back to the device, since that takes effect at once.
 */
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "provider.h"
#include "verbs/device.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

class Advertisements {
 public:
  /** At most `depth` in force at a time. */
  Advertisements(ProtectionDomain& domain, std::uint32_t depth);

  /** Completions of bind requests carry `bindWorkRequestId`. Throws std::length_error, std::system_error. */
  RemoteAddress add(ibv_qp* queuePair, const Segment& segment, Access access, std::uint64_t bindWorkRequestId);
  bool contains(std::uint32_t tag) const { return inForce_.contains(tag); }
  /** Whether its bind request has been posted and has not completed. */
  bool isBinding(std::uint32_t tag) const;
  /** Takes it back. Ignores a tag that is not in force. The device's error, or 0: after one, the peer may still reach the memory. */
  int revoke(std::uint32_t tag);
  /** The peer took it back. */
  void invalidated(std::uint32_t tag);
  /** The oldest bind request completed. */
  void bindCompleted() { binding_.pop_front(); }

  /** Bind requests that may be posted at a time. */
  static std::uint32_t bindDepth(std::uint32_t depth) noexcept { return 2 * depth; }

 private:
  struct Advertisement {
    Segment segment;
    Region region;
    /** After the region, so that it goes first: a region with a window bound to it stays. */
    Window window{nullptr, nullptr};
  };

  ProtectionDomain& domain_;
  std::uint32_t depth_;
  std::unordered_map<std::uint32_t, Advertisement> inForce_;
  std::vector<Window> spare_;
  /** What the device did not take back: it is tried once more when the connection has ended. */
  std::vector<Advertisement> stuck_;
  std::deque<std::uint32_t> binding_;
};

}  // namespace iserfs::rdma::verbs

#endif
