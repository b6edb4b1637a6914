/** See advertisements.h. */
#include "verbs/advertisements.h"

#if ISERFS_HAVE_VERBS

#include <algorithm>
#include <cerrno>
#include <stdexcept>

#include "verbs/failures.h"

namespace iserfs::rdma::verbs {

namespace {

unsigned int remoteAccess(Access access) noexcept { return access == Access::remoteWrite ? IBV_ACCESS_REMOTE_WRITE : IBV_ACCESS_REMOTE_READ; }

/** Writing by the peer is writing by the device, too. */
int regionAccess(Access access) noexcept {
  return access == Access::remoteWrite ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE : IBV_ACCESS_REMOTE_READ;
}

}  // namespace

Advertisements::Advertisements(ProtectionDomain& domain, std::uint32_t depth) : domain_(domain), depth_(depth) {}

RemoteAddress Advertisements::add(ibv_qp* queuePair, const Segment& segment, Access access, std::uint64_t bindWorkRequestId) {
  if (inForce_.size() >= depth_) throw std::length_error("more advertisements than the queue pair was made for");
  const auto address = reinterpret_cast<std::uintptr_t>(segment.data());
  Advertisement made;
  made.segment = segment;
  if (!domain_.device().hasWindows()) {
    made.region = domain_.segment(segment, regionAccess(access));
    const std::uint32_t tag = made.region->rkey;
    inForce_.emplace(tag, std::move(made));
    return {tag, address};
  }

  if (binding_.size() >= bindDepth(depth_)) throw deviceError("room to bind another memory window", EAGAIN);
  ibv_mr* memory;
  if (domain_.device().quirks().areWindowsUnbounded) {
    made.region = domain_.segment(segment, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    memory = made.region.get();
  } else {
    memory = domain_.arena(segment.arena);
  }
  if (spare_.empty()) {
    made.window = domain_.window();
  } else {
    made.window = std::move(spare_.back());
    spare_.pop_back();
  }
  ibv_mw* const window = made.window.get();
  const std::uint32_t tag = ::ibv_inc_rkey(window->rkey);
  inForce_.emplace(tag, std::move(made));
  binding_.push_back(tag);

  ibv_send_wr request{};
  request.wr_id = bindWorkRequestId;
  request.opcode = IBV_WR_BIND_MW;
  request.send_flags = IBV_SEND_SIGNALED;
  request.bind_mw.mw = window;
  request.bind_mw.rkey = tag;
  request.bind_mw.bind_info.mr = memory;
  request.bind_mw.bind_info.addr = address;
  request.bind_mw.bind_info.length = segment.length;
  request.bind_mw.bind_info.mw_access_flags = remoteAccess(access);
  ibv_send_wr* bad = nullptr;
  const int failed = ::ibv_post_send(queuePair, &request, &bad);
  if (failed != 0) {
    const int error = postError(failed);
    binding_.pop_back();
    inForce_.erase(tag);
    throw deviceError("memory window", error);
  }
  window->rkey = tag;
  return {tag, address};
}

bool Advertisements::isBinding(std::uint32_t tag) const { return std::find(binding_.begin(), binding_.end(), tag) != binding_.end(); }

int Advertisements::revoke(std::uint32_t tag) {
  auto taken = inForce_.extract(tag);
  if (taken.empty()) return 0;
  auto& [segment, region, window] = taken.mapped();
  if (window != nullptr) {
    if (const int error = ::ibv_dealloc_mw(window.get()); error != 0) {
      stuck_.push_back(std::move(taken.mapped()));
      return error;
    }
    static_cast<void>(window.release());
  }
  if (region != nullptr) {
    if (const int error = domain_.device().library().deregMr(region.get()); error != 0) {
      stuck_.push_back(std::move(taken.mapped()));
      return error;
    }
    static_cast<void>(region.release());
  }
  return 0;
}

void Advertisements::invalidated(std::uint32_t tag) {
  const auto found = inForce_.find(tag);
  if (found == inForce_.end()) return;
  if (found->second.window != nullptr) spare_.push_back(std::move(found->second.window));
  inForce_.erase(found);
}

}  // namespace iserfs::rdma::verbs

#endif
