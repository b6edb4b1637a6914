/** Posting, advertising and closing, by the connection's owner: see connection.h. Owner's thread. */
#include "verbs/connection.h"

#if ISERFS_HAVE_VERBS

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>

#include "verbs/work_request_id.h"

namespace iserfs::rdma::verbs {

namespace {

using namespace std::chrono_literals;

/**
 * For a window that is being bound when it is revoked: then the connection ends. A device binds in microseconds; one in software, on
 * a machine with too much to do, has been seen to take more than a tenth of a second.
 */
constexpr auto bindTimeout = 2s;

std::uint32_t totalLength(std::span<const Segment> segments) {
  std::uint64_t total = 0;
  for (const auto& segment : segments) {
    requireWithinArena(segment);
    total += segment.length;
  }
  if (total > UINT32_MAX) throw std::out_of_range("a message of 4 GiB or more");
  return static_cast<std::uint32_t>(total);
}

}  // namespace

void Connection::requireEstablishedOnce() const {
  if (phase_ == Phase::connecting) throw std::logic_error("posted before the connection is established");
}

void Connection::refuse(std::uint32_t workRequestId, Opcode opcode, std::uint32_t length, Status status) {
  refused_.push_back({workRequestId, opcode, status, false, 0, length});
  if (refused_.size() > 1) return;
  engine_->loop().post([weak = weak_from_this()] {
    if (const auto connection = weak.lock()) connection->deliverRefused();
  });
}

/** The device does not take it. What was posted before completes first; this does when the connection ends, which it now does. */
void Connection::deviceRefused(WorkQueue::Entry& entry, int error, std::string text) {
  // iWARP devices say so where the connection has ended, which is not known here yet.
  entry.isRefused = error != ENOTCONN;
  Failure failure{entry.isRefused ? FailureCode::resources : FailureCode::reset, std::move(text)};
  engine_->loop().post([weak = weak_from_this(), failure = std::move(failure)] {
    if (const auto connection = weak.lock()) connection->awaitReason(failure);
  });
}

void Connection::postReceive(std::uint32_t workRequestId, Segment segment) {
  requireWithinArena(segment);
  const std::lock_guard lock(mutex_);
  requireEstablishedOnce();
  if (!isOpen()) return refuse(workRequestId, Opcode::receive, segment.length, Status::flushed);
  const std::uint32_t length = segment.length;
  try {
    postToReceiveQueue(workRequestId, std::move(segment));
  } catch (const std::system_error& error) {
    const std::uint32_t index = receives_.take();
    auto& entry = receives_[index];
    entry.workRequestId = workRequestId;
    entry.opcode = Opcode::receive;
    entry.length = length;
    deviceRefused(entry, error.code().value(), error.what());
  }
}

void Connection::postToReceiveQueue(std::uint32_t workRequestId, Segment segment) {
  const std::uint32_t index = receives_.take();
  auto& entry = receives_[index];
  entry.workRequestId = workRequestId;
  entry.opcode = Opcode::receive;
  entry.length = segment.length;
  entry.segments[0] = std::move(segment);
  try {
    ibv_sge element{};
    auto count = describe(std::span(entry.segments).first(1), std::span(&element, 1), false);
    if (domain_->device().quirks().needsElementToReceive) count = 1;
    ibv_recv_wr request{};
    request.wr_id = makeWorkRequestId(WorkKind::receive, index);
    request.sg_list = &element;
    request.num_sge = static_cast<int>(count);
    ibv_recv_wr* bad = nullptr;
    const int failed = ::ibv_post_recv(queuePair_.get(), &request, &bad);
    if (failed != 0) throw deviceError("room to receive", postError(failed));
  } catch (...) {
    receives_.release(index);
    throw;
  }
}

/** Elements for the segments that are not empty; their number. */
std::uint32_t Connection::describe(std::span<const Segment> segments, std::span<ibv_sge> elements, bool isInline) {
  std::uint32_t count = 0;
  for (const auto& segment : segments) {
    if (segment.length == 0) continue;
    auto& element = elements[count++];
    element.addr = reinterpret_cast<std::uintptr_t>(segment.data());
    element.length = segment.length;
    element.lkey = isInline ? 0 : domain_->arena(segment.arena)->lkey;
  }
  return count;
}

void Connection::postSend(std::uint32_t workRequestId, std::span<const Segment> segments, std::optional<std::uint32_t> invalidate) {
  if (segments.size() > 2) throw std::out_of_range("a message of more than two segments");
  const std::uint32_t length = totalLength(segments);
  const std::lock_guard lock(mutex_);
  requireEstablishedOnce();
  if (!isOpen()) return refuse(workRequestId, Opcode::send, length, Status::flushed);
  const std::uint32_t index = sends_.take();
  auto& entry = sends_[index];
  entry.workRequestId = workRequestId;
  entry.opcode = Opcode::send;
  entry.length = length;
  std::copy(segments.begin(), segments.end(), entry.segments.begin());
  ibv_send_wr request{};
  request.opcode = IBV_WR_SEND;
  // Where the device cannot, the peer revokes the tag itself when it sees that nobody did.
  if (invalidate && domain_->device().canInvalidate()) {
    request.opcode = IBV_WR_SEND_WITH_INV;
    request.invalidate_rkey = *invalidate;
    // libsiw looks for it here.
    request.wr.rdma.rkey = *invalidate;
  }
  postToSendQueue(request, index);
}

void Connection::postWrite(std::uint32_t workRequestId, Segment segment, RemoteAddress to) {
  requireWithinArena(segment);
  const std::lock_guard lock(mutex_);
  requireEstablishedOnce();
  if (!isOpen()) return refuse(workRequestId, Opcode::write, segment.length, Status::flushed);
  const std::uint32_t index = sends_.take();
  auto& entry = sends_[index];
  entry.workRequestId = workRequestId;
  entry.opcode = Opcode::write;
  entry.length = segment.length;
  entry.segments[0] = std::move(segment);
  ibv_send_wr request{};
  request.opcode = IBV_WR_RDMA_WRITE;
  request.wr.rdma.remote_addr = to.address;
  request.wr.rdma.rkey = to.tag;
  postToSendQueue(request, index);
}

void Connection::postRead(std::uint32_t workRequestId, Segment segment, RemoteAddress from) {
  requireWithinArena(segment);
  const std::lock_guard lock(mutex_);
  requireEstablishedOnce();
  if (!isOpen()) return refuse(workRequestId, Opcode::read, segment.length, Status::flushed);
  const std::uint32_t index = sends_.take();
  auto& entry = sends_[index];
  entry.workRequestId = workRequestId;
  entry.opcode = Opcode::read;
  entry.length = segment.length;
  entry.segments[0] = std::move(segment);
  if (!hasReads_) return deviceRefused(entry, EOPNOTSUPP, "the peer allows no RDMA Reads");
  ibv_send_wr request{};
  request.opcode = IBV_WR_RDMA_READ;
  request.wr.rdma.remote_addr = from.address;
  request.wr.rdma.rkey = from.tag;
  postToSendQueue(request, index);
}

/** Posts what `sends_[index]` describes. The device itself waits with RDMA Reads beyond the agreed depth. */
void Connection::postToSendQueue(ibv_send_wr& request, std::uint32_t index) {
  auto& entry = sends_[index];
  try {
    std::array<ibv_sge, 2> elements{};
    const bool canInline = request.opcode == IBV_WR_SEND || (request.opcode == IBV_WR_SEND_WITH_INV && domain_->device().quirks().canInlineInvalidation);
    const bool isInline = canInline && entry.length <= inlineLimit_;
    if (entry.opcode == Opcode::read && entry.length != 0 && domain_->device().isIwarp()) {
      // On iWARP the peer answers an RDMA Read by writing to a tag, and devices want remote write access there (Linux's own users of
      // them give it; siw, 6.1, does without): a region of exactly these bytes until the Read completes, never the arena.
      entry.sink = domain_->segment(entry.segments[0], IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
      elements[0] = {reinterpret_cast<std::uintptr_t>(entry.segments[0].data()), entry.length, entry.sink->lkey};
      request.num_sge = 1;
    } else {
      request.num_sge = static_cast<int>(describe(entry.segments, elements, isInline));
    }
    request.wr_id = makeWorkRequestId(WorkKind::send, index);
    request.sg_list = elements.data();
    request.send_flags = IBV_SEND_SIGNALED | (isInline ? static_cast<unsigned int>(IBV_SEND_INLINE) : 0U);
    ibv_send_wr* bad = nullptr;
    const int failed = ::ibv_post_send(queuePair_.get(), &request, &bad);
    if (failed != 0) throw deviceError("room to send", postError(failed));
  } catch (const std::system_error& error) {
    deviceRefused(entry, error.code().value(), error.what());
  }
}

RemoteAddress Connection::advertise(Segment segment, Access access) {
  requireWithinArena(segment);
  if (segment.length == 0) throw std::out_of_range("nothing to advertise");
  const std::lock_guard lock(mutex_);
  requireEstablishedOnce();
  if (!isOpen()) return {};
  return advertisements_->add(queuePair_.get(), segment, access, makeWorkRequestId(WorkKind::bind, 0));
}

void Connection::revoke(std::uint32_t tag) {
  std::unique_lock lock(mutex_);
  if (!advertisements_ || !advertisements_->contains(tag)) return;
  // A window cannot be given back while it is being bound: the device would find it gone and end the connection.
  const auto isSettled = [&] { return !advertisements_ || !advertisements_->isBinding(tag); };
  if (!bindCompleted_.wait_for(lock, bindTimeout, isSettled)) endWithMemory("a memory window could not be taken back while it was bound");
  const int error = advertisements_ ? advertisements_->revoke(tag) : 0;
  if (error != 0) endWithMemory("the device does not take memory back from the peer: " + errorText(error));
}

/** The peer may still have access to memory that it must not have any more: from now on nothing of its reaches any. */
void Connection::endWithMemory(std::string text) {
  breakQueuePair();
  engine_->loop().post([weak = weak_from_this(), text = std::move(text)] {
    if (const auto connection = weak.lock()) connection->fail({FailureCode::reset, text});
  });
}

void Connection::close(CloseMode mode) {
  {
    const std::lock_guard lock(mutex_);
    isCloseWanted_ = true;
  }
  engine_->loop().post([weak = weak_from_this(), mode] {
    if (const auto connection = weak.lock()) connection->closeOnLoop(mode);
  });
}

}  // namespace iserfs::rdma::verbs

#endif
