/** Completions of a connection, from the device's queue to batches of events: see connection.h. Loop thread. */
#include "verbs/connection.h"

#if ISERFS_HAVE_VERBS

#include <array>

#include "verbs/work_request_id.h"

namespace iserfs::rdma::verbs {

namespace {
constexpr int batchSize = 64;
}

bool Connection::poll() {
  const auto keep = shared_from_this();
  // A message of the peer may be here before the last one of the handshake: it waits, `established` is the first event.
  if (events_ == nullptr || !isConnected_) return false;
  return takeCompletions();
}

bool Connection::arm() {
  return events_ != nullptr && completionQueue_ != nullptr && ::ibv_req_notify_cq(completionQueue_.get(), 0) == 0;
}

bool Connection::takeCompletions() {
  std::array<ibv_wc, batchSize> work;
  const int count = ::ibv_poll_cq(completionQueue_.get(), batchSize, work.data());
  if (count < 0) {
    finish({FailureCode::reset, "the RDMA device's completion queue broke"});
    return false;
  }
  if (count == 0) return false;

  std::vector<Completion> completions;
  std::vector<WorkQueue::Entry> released;
  bool isBroken = false;
  bool isReasonKnown;
  {
    const std::lock_guard lock(mutex_);
    for (int i = 0; i < count; i++) {
      const auto& one = work[static_cast<std::size_t>(i)];
      completed(one, completions, released);
      isBroken |= one.status != IBV_WC_SUCCESS;
    }
    isBroken = isBroken && (phase_ == Phase::established || phase_ == Phase::draining);
    isReasonKnown = reason_.has_value();
  }
  bindCompleted_.notify_all();
  released.clear();
  deliver(completions);
  if (!isBroken) {
    disconnectWhenDrained();
  } else if (isReasonKnown) {
    finish({});
  } else {
    awaitReason(unknownReason());
  }
  return true;
}

void Connection::completed(const ibv_wc& work, std::vector<Completion>& completions, std::vector<WorkQueue::Entry>& released) {
  const auto [kind, index] = splitWorkRequestId(work.wr_id);
  const bool isFlush = work.status == IBV_WC_WR_FLUSH_ERR ||
                       (work.status == IBV_WC_LOC_QP_OP_ERR && kind == WorkKind::send && device_->quirks().areFlushesLocalErrors);
  if (work.status != IBV_WC_SUCCESS && !isFlush && !reason_) reason_ = completionFailure(library_, kind, work.status);
  if (kind == WorkKind::bind) {
    advertisements_->bindCompleted();
    return;
  }
  auto entry = (kind == WorkKind::send ? sends_ : receives_).release(index);
  Completion completion;
  completion.workRequestId = entry.workRequestId;
  completion.opcode = entry.opcode;
  completion.byteLength = entry.length;
  if (work.status == IBV_WC_SUCCESS) {
    completion.status = Status::success;
    if (kind == WorkKind::receive) {
      completion.byteLength = work.byte_len;
      if ((work.wc_flags & device_->quirks().invalidationFlags) != 0) {
        completion.hasInvalidated = true;
        completion.invalidatedTag = work.invalidated_rkey;
        advertisements_->invalidated(work.invalidated_rkey);
      }
    }
  } else {
    completion.status = isFlush && !entry.isRefused ? Status::flushed : Status::failed;
    hasFlushedSends_ = hasFlushedSends_ || kind == WorkKind::send;
  }
  completions.push_back(completion);
  released.push_back(std::move(entry));
}

void Connection::deliver(const std::vector<Completion>& completions) {
  if (!completions.empty()) events_->completed(completions);
}

void Connection::deliverRefused() {
  std::vector<Completion> refused;
  {
    const std::lock_guard lock(mutex_);
    refused.swap(refused_);
  }
  if (events_ != nullptr && isConnected_) deliver(refused);
}

}  // namespace iserfs::rdma::verbs

#endif
