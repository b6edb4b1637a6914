#include "queue_pair.h"

#include <cerrno>
#include <random>
#include <stdexcept>
#include <utility>

#include "linger.h"

namespace iserfs::rdma::iwarp {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t mostPrivateData = 196;
constexpr std::uint16_t mostReads = 1024;

/**
 * What is sent, and what is received, for one connection at a time: then others get their turn. A request of 1 MiB fits with the message
 * that ends it, which would wait for another turn otherwise.
 */
constexpr std::size_t turnBudget = 1024 * 1024 + 64 * 1024;
/** Bytes in a system call: as many as there are, but of those with a checksum no more than stay in a cache between it and the copy. */
constexpr std::size_t sendBatch = turnBudget;
constexpr std::size_t checkedSendBatch = 256 * 1024;

constexpr milliseconds drainPatience{5000};
constexpr milliseconds farewellPatience{2000};

std::uint64_t randomSeed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

const QueuePairOptions& checked(const QueuePairOptions& options) {
  if (options.privateData.size() > mostPrivateData) throw std::length_error("more than 196 bytes of private data");
  if (options.ird > mostReads || options.ord > mostReads) throw std::length_error("more than 1024 RDMA Reads at a time");
  return options;
}

}  // namespace

IwarpQueuePair::IwarpQueuePair(std::shared_ptr<SocketLoop> loop, std::shared_ptr<OpenEndpoints> endpoints,
                               const QueuePairOptions& options, std::shared_ptr<QueuePairEvents> events)
    : loop_(std::move(loop)),
      endpoints_(std::move(endpoints)),
      options_(checked(options)),
      queues_(options, randomSeed(), [this] { const std::lock_guard wait(transmitLock_); }),
      events_(std::move(events)) {}

IwarpQueuePair::~IwarpQueuePair() { endpoints_->remove(this); }

std::shared_ptr<QueuePair> IwarpQueuePair::handle() {
  return {static_cast<QueuePair*>(this), [self = shared_from_this()](QueuePair*) { self->close(CloseMode::abrupt); }};
}

// ---- the owner ----

void IwarpQueuePair::postReceive(std::uint32_t workRequestId, Segment segment) {
  queues_.postReceive(workRequestId, std::move(segment));
  if (!isCorked_) announce();
}

void IwarpQueuePair::postSend(std::uint32_t workRequestId, std::span<const Segment> segments, std::optional<std::uint32_t> invalidate) {
  queues_.postSend(workRequestId, segments, invalidate);
  pumpPosted();
}

void IwarpQueuePair::postWrite(std::uint32_t workRequestId, Segment segment, RemoteAddress to) {
  queues_.postWrite(workRequestId, std::move(segment), to);
  pumpPosted();
}

void IwarpQueuePair::postRead(std::uint32_t workRequestId, Segment segment, RemoteAddress from) {
  queues_.postRead(workRequestId, std::move(segment), from);
  pumpPosted();
}

RemoteAddress IwarpQueuePair::advertise(Segment segment, Access access) { return queues_.advertise(segment, access); }

void IwarpQueuePair::revoke(std::uint32_t tag) {
  if (queues_.revoke(tag)) return;
  // A transfer is under way. It may have ended by the time that its thread lets us in; else the connection goes with the memory.
  const std::lock_guard noReceiving(receiveLock_);
  const std::lock_guard noSending(transmitLock_);
  if (queues_.revoke(tag)) return;
  isCut_ = true;
  if (transmitter_) transmitter_->clear();
  queues_.revokeForced(tag);
  loop_->post([self = shared_from_this()] {
    self->end({FailureCode::reset, "memory was taken back while the peer was using it"}, Farewell::reset);
  });
}

void IwarpQueuePair::cork() { isCorked_ = true; }

void IwarpQueuePair::uncork() {
  isCorked_ = false;
  pump(turnBudget);
  if (queues_.needsDelivery()) deliver();
}

void IwarpQueuePair::close(CloseMode mode) {
  queues_.refusePosts();
  isClosing_.store(true);
  loop_->post([self = shared_from_this(), mode] { self->closeOnLoop(mode); });
}

// ---- sending ----

void IwarpQueuePair::pumpPosted() {
  if (isCorked_) return;
  pump(turnBudget);
  announce();
}

/**
 * Sends what there is to send, up to about `budget` bytes. One thread at a time does; a call that finds another at it leaves it the
 * work, which looks again before it lets go.
 */
void IwarpQueuePair::pump(std::size_t budget) noexcept {
  if (wanted_.fetch_add(1, std::memory_order_acq_rel) > 0) return;
  bool hasMore = false;
  std::uint32_t seen = 0;
  do {
    seen = wanted_.load(std::memory_order_acquire);
    const std::lock_guard guard(transmitLock_);
    hasMore = transmit(budget);
  } while (wanted_.fetch_sub(seen, std::memory_order_acq_rel) != seen);
  if (hasMore && !isPumpDue_.exchange(true)) {
    loop_->post([self = shared_from_this()] {
      self->isPumpDue_ = false;
      self->pump(turnBudget);
      self->deliver();
    });
  }
  if (isClosing_.load()) loop_->post([self = shared_from_this()] { self->finishIfDrained(); });
}

/** With the lock held. True: there is more, and the socket would take it. */
bool IwarpQueuePair::transmit(std::size_t budget) noexcept {
  if (!mayTransmit_ || isBlocked_ || isCut_) return false;
  for (std::size_t total = 0;;) {
    // Then it only looks whether there is more: the frame that it finds stays built for the next turn.
    const bool isSpent = total >= budget;
    const auto parts = transmitter_->gather(isSpent ? 1 : transmitter_->addsCrc() ? checkedSendBatch : sendBatch);
    if (parts.empty()) {
      if (queues_.wasReadImpossible()) {
        loop_->post([self = shared_from_this()] {
          self->end({FailureCode::unsupported, "the peer grants no RDMA Reads"}, Farewell::close);
        });
      }
      return false;
    }
    if (isSpent) return true;
    std::size_t length = 0;
    for (const iovec& part : parts) length += part.iov_len;
    const Transfer transfer = sendGathered(socket_, parts);
    if (transfer.error != 0) {
      mayTransmit_ = false;
      wasReset_ = transfer.error == ECONNRESET;
      loop_->post([self = shared_from_this(), error = transfer.error] {
        // The peer may have said why.
        self->isEndNear_ = true;
        self->receive();
        self->broken(error);
      });
      return false;
    }
    transmitter_->sent(transfer.length);
    total += transfer.length;
    if (transfer.wouldBlock || transfer.length < length) {
      isBlocked_ = true;
      return false;
    }
  }
}

void IwarpQueuePair::announce() {
  if (queues_.needsDelivery()) loop_->post([self = shared_from_this()] { self->deliver(); });
}

void IwarpQueuePair::letTransmit() {
  {
    const std::lock_guard guard(transmitLock_);
    mayTransmit_ = true;
  }
  pump(turnBudget);
  deliver();
}

// ---- receiving ----

void IwarpQueuePair::socketReady(SocketLoop::Readiness readiness) noexcept {
  isEndNear_ = isEndNear_ || readiness.isEnding;
  if (phase_ == Phase::connecting) {
    if (readiness.writable) sendRequest();
    return;
  }
  if (phase_ == Phase::requesting) {
    if (readiness.readable) readReply();
    return;
  }
  // Where it is due, what has come now is its affair.
  if (readiness.readable && !isReceiveDue_) receive();
  if (readiness.writable && phase_ != Phase::ended) {
    {
      const std::lock_guard guard(transmitLock_);
      isBlocked_ = false;
    }
    pump(turnBudget);
    deliver();
  }
}

void IwarpQueuePair::receive() noexcept {
  std::size_t budget = turnBudget;
  while (phase_ >= Phase::awaitingRtr && phase_ != Phase::ended && receiveOnce(budget)) {
    if (budget > 0) continue;
    if (!std::exchange(isReceiveDue_, true)) {
      loop_->post([self = shared_from_this()] {
        self->isReceiveDue_ = false;
        self->receive();
      });
    }
    break;
  }
  if (phase_ == Phase::ended) return;
  // Answers to Reads, and Reads that waited for an answer.
  pump(turnBudget);
  deliver();
  finishIfDrained();
}

/** False where there is nothing more to be had now, or ever. */
bool IwarpQueuePair::receiveOnce(std::size_t& budget) noexcept {
  Transfer transfer;
  std::size_t asked = 0;
  Receiver::State state = Receiver::State::running;
  bool isFirst = false;
  {
    const std::lock_guard guard(receiveLock_);
    if (isCut_) return false;
    const auto parts = receiver_->buffers();
    for (const iovec& part : parts) asked += part.iov_len;
    transfer = receiveScattered(socket_, parts);
    if (transfer.length > 0) {
      isFirst = receiver_->frameCount() == 0;
      state = receiver_->filled(transfer.length);
      isFirst = isFirst && receiver_->frameCount() > 0;
    }
  }
  if (isFirst) firstFrameCame();
  if (state == Receiver::State::violated) {
    violated();
    return false;
  }
  if (state == Receiver::State::terminated) {
    terminated();
    return false;
  }
  if (transfer.isEnd) {
    peerClosed();
    return false;
  }
  if (transfer.error != 0) {
    broken(transfer.error);
    return false;
  }
  budget -= std::min(budget, transfer.length);
  // A short read has emptied the socket; what comes next is told. Unless the end was told already.
  return !transfer.wouldBlock && (transfer.length == asked || isEndNear_);
}

void IwarpQueuePair::firstFrameCame() {
  if (phase_ == Phase::awaitingRtr) {
    phase_ = Phase::open;
    tellEstablished();
  }
  if (phase_ != Phase::open) return;
  if (timer_) loop_->stopTimer(*timer_);
  timer_.reset();
  letTransmit();
}

/** The loop's thread, or the owner's where it uncorks. */
void IwarpQueuePair::deliver() noexcept {
  const std::lock_guard guard(deliveryLock_);
  if (!isDelivering_) return;
  batch_.clear();
  queues_.takeCompletions(batch_);
  if (!batch_.empty()) events_->completed(batch_);
}

// ---- the end ----

void IwarpQueuePair::abandon() noexcept { end({FailureCode::none, "closed"}, Farewell::reset); }

void IwarpQueuePair::closeOnLoop(CloseMode mode) {
  if (phase_ == Phase::ended) return;
  if (mode == CloseMode::abrupt || phase_ < Phase::open) return end({FailureCode::none, "closed"}, Farewell::reset);
  if (phase_ != Phase::open) return;
  phase_ = Phase::draining;
  startTimer(drainPatience, &IwarpQueuePair::timedOut);
  letTransmit();
  finishIfDrained();
}

void IwarpQueuePair::finishIfDrained() {
  if (phase_ != Phase::draining || queues_.hasWork()) return;
  phase_ = Phase::halfClosed;
  startTimer(farewellPatience, &IwarpQueuePair::timedOut);
  ::shutdown(socket_.number(), SHUT_WR);
}

void IwarpQueuePair::timedOut() {
  switch (phase_) {
    case Phase::connecting: return end({FailureCode::timedOut, "no answer (connection timed out)"}, Farewell::reset);
    case Phase::requesting: return end({FailureCode::timedOut, "what listens there did not answer the MPA request in time"}, Farewell::reset);
    case Phase::awaitingRtr: return end({FailureCode::timedOut, "the peer did not send its ready-to-receive message"}, Farewell::reset);
    case Phase::open: return letTransmit();
    case Phase::draining:
      // All may have gone just now, late as this loop may be.
      finishIfDrained();
      if (phase_ != Phase::draining) return;
      return end({FailureCode::timedOut, "the peer did not take what was left to send"}, Farewell::reset);
    // It has everything, and says nothing.
    case Phase::halfClosed: return end({FailureCode::none, "closed"}, Farewell::close);
    default: return;
  }
}

void IwarpQueuePair::startTimer(milliseconds delay, void (IwarpQueuePair::*then)()) {
  if (timer_) loop_->stopTimer(*timer_);
  timer_ = loop_->startTimer(delay, [self = shared_from_this(), then] {
    self->timer_.reset();
    (self.get()->*then)();
  });
}

void IwarpQueuePair::peerClosed() {
  bool wasReset = false;
  {
    const std::lock_guard guard(transmitLock_);
    wasReset = wasReset_;
  }
  if (wasReset) return broken(ECONNRESET);
  bool isIdle = false;
  {
    const std::lock_guard guard(receiveLock_);
    isIdle = receiver_->isIdle();
  }
  if (isIdle) return end({FailureCode::none, "the peer closed the connection"}, Farewell::close);
  end({FailureCode::reset, "the peer closed the connection in the middle of a message"}, Farewell::reset);
}

void IwarpQueuePair::broken(int error) {
  // After our own end the peer may drop the connection as it likes.
  if (phase_ == Phase::halfClosed) return end({FailureCode::none, "closed"}, Farewell::close);
  end(failureOfConnection(error), Farewell::reset);
}

void IwarpQueuePair::violated() {
  Violation violation;
  std::vector<std::byte> payload;
  {
    const std::lock_guard guard(receiveLock_);
    violation = receiver_->violation();
    payload = buildTerminate(violation.code, receiver_->offendingHeader());
  }
  if (violation.code == terminate_code::untaggedTooLong) queues_.failOldest(Opcode::receive);
  end({FailureCode::peerViolation, std::move(violation.text)}, Farewell::terminate, payload);
}

void IwarpQueuePair::terminated() {
  std::string text;
  {
    const std::lock_guard guard(receiveLock_);
    text = describeTerminate(receiver_->terminateMessage());
    if (blamesReadRequest(receiver_->terminateMessage())) queues_.failOldest(Opcode::read);
  }
  end({FailureCode::terminated, std::move(text)}, Farewell::close);
}

void IwarpQueuePair::end(Failure failure, Farewell farewell, std::span<const std::byte> terminatePayload) noexcept {
  if (phase_ == Phase::ended) return;
  phase_ = Phase::ended;
  const auto self = shared_from_this();
  if (timer_) loop_->stopTimer(*timer_);
  {
    const std::lock_guard noReceiving(receiveLock_);
    const std::lock_guard noSending(transmitLock_);
    if (transmitter_ && farewell == Farewell::terminate && !isCut_) {
      static_cast<void>(sendGathered(socket_, transmitter_->gatherTerminate(terminatePayload)));
    }
    if (transmitter_) transmitter_->clear();
    mayTransmit_ = false;
    isCut_ = true;
    if (socket_) loop_->remove(socket_);
    if (socket_ && farewell == Farewell::terminate) {
      closeAfterPeer(*loop_, std::move(socket_));
    } else {
      if (socket_ && farewell == Farewell::reset) resetOnClose(socket_);
      socket_ = Descriptor();
    }
    queues_.flush();
  }
  endpoints_->remove(this);
  const std::lock_guard guard(deliveryLock_);
  batch_.clear();
  queues_.takeCompletions(batch_);
  const auto events = std::move(events_);
  if (std::exchange(isDelivering_, false) && !batch_.empty()) events->completed(batch_);
  events->closed(failure);
}

}  // namespace iserfs::rdma::iwarp
