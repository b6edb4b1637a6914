/**
 * A connection: its identifier, queue pair, completion queue, and everything that is posted and advertised, from the first wish to
 * the `closed` event. `queue_pair.h` is what its owner holds.
 *
 * Who may touch what: beginning (connection.cc), completions (connection_completions.cc) and end (connection_ending.cc) run on the
 * loop's thread; posting (connection_posting.cc) on the owner's. They meet in the queue pair, the bookkeeping of work requests and the
 * advertisements, which `mutex_` guards. No event is delivered while it is held.
 *
 * The end, however it comes about, has one path (`finish`): the queue pair is put into its error state, what had completed by then
 * is delivered, windows, regions and the queue pair are destroyed, and only then, when no device can reach any memory, what is left
 * completes as flushed. So nothing depends on whether a driver flushes.
 */
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "provider.h"
#include "verbs/advertisements.h"
#include "verbs/engine.h"
#include "verbs/failures.h"
#include "verbs/interruptible_call.h"
#include "verbs/work_queue.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

struct QueuePairDeleter {
  const Library* library = nullptr;
  void operator()(ibv_qp* queuePair) const noexcept { library->destroyQp(queuePair); }
};

struct CompletionQueueDeleter {
  const Library* library = nullptr;
  void operator()(ibv_cq* queue) const noexcept { library->destroyCq(queue); }
};

/** A connection request that was accepted. */
struct Incoming {
  CmId id;
  std::vector<std::byte> privateData;
  std::uint8_t responderResources = 0;
  std::uint8_t initiatorDepth = 0;
};

class Connection final : public CmHandler, public CompletionSource, public QueuePairOwner, public std::enable_shared_from_this<Connection> {
 public:
  /** Throws std::length_error, std::out_of_range for options that cannot be. Owner's thread. */
  Connection(std::shared_ptr<Engine> engine, QueuePairOptions options, std::shared_ptr<QueuePairEvents> events);

  // Beginning. Loop thread.
  void connect(const sockaddr_storage& to, std::chrono::milliseconds timeout);
  void accept(Incoming incoming);
  /** Ends at once with that. */
  void fail(Failure failure);

  // As in provider.h. Owner's thread.
  void postReceive(std::uint32_t workRequestId, Segment segment);
  void postSend(std::uint32_t workRequestId, std::span<const Segment> segments, std::optional<std::uint32_t> invalidate);
  void postWrite(std::uint32_t workRequestId, Segment segment, RemoteAddress to);
  void postRead(std::uint32_t workRequestId, Segment segment, RemoteAddress from);
  RemoteAddress advertise(Segment segment, Access access);
  void revoke(std::uint32_t tag);
  void close(CloseMode mode);

  // Loop thread.
  void cmEvent(rdma_cm_id* id, const CmEvent& event) override;
  void shutDown() override;
  bool poll() override;
  bool arm() override;
  std::shared_ptr<CompletionSource> self() override { return shared_from_this(); }

  /** Loop thread of any provider. */
  void asyncEvent(ibv_event_type type) noexcept override;

 private:
  enum class Phase {
    connecting,
    established,
    /** Closing in order: what is posted to send must complete first. */
    draining,
    /** The peer has been told. */
    disconnecting,
    /** No queue pair any more. */
    ended,
  };

  // ---- connection.cc: loop thread ----
  void addressResolved();
  void routeResolved();
  /** Device objects and the first receives. Throws std::system_error, ProviderError. */
  void makeQueuePair();
  rdma_conn_param connectionParameters(std::uint8_t ird, std::uint8_t ord) const;
  void connectReturned(int error);
  void establishedByPeer(const CmEvent& event);
  void established(std::uint8_t ird, std::uint8_t ord, std::vector<std::byte> privateData);
  void disconnected(int status);
  void startTimer(std::chrono::milliseconds delay, Failure failure);
  void stopTimer();
  /** Something is broken whose reason is not known yet: another event may tell, for a short time. */
  void awaitReason(Failure otherwise);
  void noteReason(Failure failure);
  /** The first known reason, else `failure`. */
  Failure reasonOr(Failure failure);
  /** Work requests were flushed, and nothing said why. */
  Failure unknownReason() const;

  // ---- connection_ending.cc: loop thread ----
  void closeOnLoop(CloseMode mode);
  /** Tells the peer, once nothing is left to send. */
  void disconnectWhenDrained();
  void finish(Failure failure);
  /** Owner's thread, too; `mutex_` held. */
  void breakQueuePair() noexcept;
  bool isQueuePairBroken() const noexcept;
  void destroyObjects(std::vector<Completion>& completions);
  /** Instead, where that may block: an iWARP connection that its peer has not answered yet. */
  void buryObjects();

  // ---- connection_completions.cc: loop thread ----
  /** Takes up to one batch. Whether there was any. */
  bool takeCompletions();
  void completed(const ibv_wc& work, std::vector<Completion>& completions, std::vector<WorkQueue::Entry>& released);
  void deliver(const std::vector<Completion>& completions);
  void deliverRefused();

  // ---- connection_posting.cc: owner's thread, `mutex_` held ----
  bool isOpen() const noexcept { return phase_ == Phase::established && !isCloseWanted_; }
  void requireEstablishedOnce() const;
  /** Completes a request that was never posted. */
  void refuse(std::uint32_t workRequestId, Opcode opcode, std::uint32_t length, Status status);
  std::uint32_t describe(std::span<const Segment> segments, std::span<ibv_sge> elements, bool isInline);
  void postToSendQueue(ibv_send_wr& request, std::uint32_t index);
  /** Owner's or loop thread. Throws std::system_error. */
  void postToReceiveQueue(std::uint32_t workRequestId, Segment segment);
  void endWithMemory(std::string text);
  void deviceRefused(WorkQueue::Entry& entry, int error, std::string text);

  const std::shared_ptr<Engine> engine_;
  const Library& library_;

  // Loop thread only.
  QueuePairOptions options_;
  std::shared_ptr<QueuePairEvents> events_;
  bool isPassive_ = false;
  bool isConnected_ = false;
  bool isConnectCalled_ = false;
  bool hasPeerClosed_ = false;
  /** Passive: what the initiator said. */
  std::vector<std::byte> peerData_;
  std::uint8_t ird_ = 0;
  std::uint8_t ord_ = 0;
  std::string stage_ = "begins";
  CmId id_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<ibv_cq, CompletionQueueDeleter> completionQueue_;
  std::unique_ptr<InterruptibleCall> connecting_;
  std::optional<EventLoop::Timer> timer_;
  bool isAwaitingReason_ = false;

  std::mutex mutex_;
  Phase phase_ = Phase::connecting;
  bool isCloseWanted_ = false;
  std::shared_ptr<ProtectionDomain> domain_;
  std::unique_ptr<ibv_qp, QueuePairDeleter> queuePair_;
  std::optional<Advertisements> advertisements_;
  std::condition_variable bindCompleted_;
  WorkQueue sends_;
  WorkQueue receives_;
  std::uint32_t inlineLimit_ = 0;
  bool hasReads_ = false;
  bool hasFlushedSends_ = false;
  std::vector<Completion> refused_;
  std::optional<Failure> reason_;
};

}  // namespace iserfs::rdma::verbs

#endif
