/**
 * The books of a queue pair: work requests that are posted, what the peer may reach, Reads in both directions, completions that are
 * to be delivered. Receiver and transmitter ask here what is next and report here what is done. It knows no sockets and moves no
 * bytes.
 *
 * Threads: any, unless a method says otherwise; one lock, held for a moment only. Where the books may lag behind what the peer has
 * seen already (another thread has handed bytes to TCP and has not said so yet), `catchUp` is called without the lock: it returns
 * when that thread has.
 */
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "provider.h"
#include "receiver.h"
#include "stag_table.h"
#include "transmitter.h"

namespace iserfs::rdma::iwarp {

class WorkQueues final : public Receiver::Host, public Transmitter::Host {
 public:
  /** Posts `options.receives`. Throws what `postReceive` throws, and std::length_error for depths that make no sense. */
  WorkQueues(const QueuePairOptions& options, std::uint64_t seed, std::function<void()> catchUp);

  // ---- the owner ----

  /** Throw std::out_of_range (segment) and std::length_error (depth). */
  void postReceive(std::uint32_t workRequestId, Segment segment);
  void postSend(std::uint32_t workRequestId, std::span<const Segment> segments, std::optional<std::uint32_t> invalidate);
  void postWrite(std::uint32_t workRequestId, Segment segment, RemoteAddress to);
  void postRead(std::uint32_t workRequestId, Segment segment, RemoteAddress from);
  RemoteAddress advertise(const Segment& segment, Access access);

  /** From now on the peer cannot begin to use the tag. True: nothing is under way either, and the memory is let go. */
  bool revoke(std::uint32_t tag);
  /** Lets the memory go in any case: receiver and transmitter have been stopped. */
  void revokeForced(std::uint32_t tag);

  /** What is posted from now on is flushed. */
  void refusePosts();

  // ---- the queue pair ----

  /** As agreed with the peer. Before receiver and transmitter begin. */
  void setReadDepths(std::uint16_t ird, std::uint16_t ord);
  /** A Read was posted, and the peer grants none: it has completed as failed. */
  bool wasReadImpossible();
  /** Something was posted that has not been sent, or a Read is not answered. */
  bool hasWork();
  /**
   * All that is posted completes as flushed, all tags are revoked, nothing refers to memory; what is posted later is dropped.
   * Receiver and transmitter have been stopped.
   */
  void flush();
  /** The oldest request of that kind is what the peer complains about: it completes as failed. Before `flush`. */
  void failOldest(Opcode opcode);

  /** True once for each batch: somebody has to see to it that `takeCompletions` is called. */
  bool needsDelivery();
  /** Those that are to be delivered now. `batch` is empty; its memory is used again. */
  void takeCompletions(std::vector<Completion>& batch);

  // ---- Receiver::Host: the loop's thread ----

  std::optional<std::span<std::byte>> beginMessage() noexcept override;
  std::optional<Violation> endMessage(std::uint32_t length, std::optional<std::uint32_t> invalidated) noexcept override;
  Receiver::Place beginWrite(std::uint32_t tag, std::uint64_t address, std::uint32_t length) noexcept override;
  void endWrite(std::uint32_t tag) noexcept override;
  std::optional<Receiver::ReadSink> oldestRead() noexcept override;
  void endRead() noexcept override;
  std::optional<Violation> readRequested(const ReadRequest& request) noexcept override;

  // ---- Transmitter::Host: one thread at a time ----

  bool nextMessage(Message& message) noexcept override;
  void messageSent(const Message& message) noexcept override;

 private:
  struct OutstandingRead {
    std::uint32_t workRequestId = 0;
    std::uint32_t tag = 0;
    Segment segment;
  };

  // All with the lock held.
  void complete(const Completion& completion);
  void post(Message message);
  bool nextPosted(Message& message);
  bool nextResponse(Message& message);
  void beginRead(Message& message);
  std::optional<Violation> checkInvalidation(std::uint32_t tag, bool& isBusy);

  const std::uint32_t sendDepth_;
  const std::uint32_t receiveDepth_;
  const std::uint32_t advertisementDepth_;
  const std::function<void()> catchUp_;

  std::mutex lock_;
  bool isRefusing_ = false;
  bool isOver_ = false;
  std::uint16_t ird_;
  std::uint16_t ord_;

  std::deque<ReceiveRequest> receives_;
  std::deque<Message> posted_;
  /** Reads that wait for an answer to an earlier one. */
  std::deque<Message> waitingReads_;
  std::deque<OutstandingRead> reads_;
  std::deque<Message> responses_;
  /** Responses that are queued or on their way out. */
  std::uint32_t responsesDue_ = 0;
  bool isResponsesTurn_ = false;
  /** Sends and Writes that the transmitter has, in order, as they will complete. */
  std::deque<Completion> transmitting_;
  bool wasReadImpossible_ = false;

  StagTable tags_;
  std::uint32_t advertised_ = 0;

  std::vector<Completion> completions_;
  bool isDeliveryDue_ = false;
  /** Posted and not delivered as completed. */
  std::uint32_t sendsInUse_ = 0;
  std::uint32_t receivesInUse_ = 0;
};

}  // namespace iserfs::rdma::iwarp
