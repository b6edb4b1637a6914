/**
 * A connection of the software provider: a TCP socket, the byte machines on both its directions, and the books between them.
 *
 * Threads. In the program owner and loop have one thread, so that a message wakes up nobody but those who want it. Nothing here counts
 * on that. The loop's thread receives, keeps time, tells the events and decides on the connection's life. Sending is done by
 * whoever posts, at once or when it uncorks, as far as the socket takes it, and by the loop's thread from there. Who uncorks is told
 * what is complete by that on its own thread. Two locks are held while bytes
 * move, always in this order: `receiveLock_` (the receiver and the memory it fills), `transmitLock_` (the transmitter and the memory
 * it reads). A revocation that meets a transfer takes both; so it waits for a system call and a checksum, never for the peer.
 *
 * After `closed` nothing follows: what is posted later is dropped, as `closed` settles it. Where there never was a connection,
 * `closed` is the only event, and stands for the completions of what was posted.
 */
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "mpa.h"
#include "open_endpoints.h"
#include "provider.h"
#include "receiver.h"
#include "socket_loop.h"
#include "transmitter.h"
#include "work_queues.h"

namespace iserfs::rdma::iwarp {

/** A connection that somebody made to us, with its MPA request. Without a socket: it has gone again. */
struct IncomingConnection {
  Descriptor socket;
  MpaFrame request;
};

class IwarpQueuePair final : public QueuePair,
                             public Endpoint,
                             public SocketLoop::Handler,
                             public std::enable_shared_from_this<IwarpQueuePair> {
 public:
  /** Throws std::length_error and std::out_of_range for options that cannot be met. */
  IwarpQueuePair(std::shared_ptr<SocketLoop> loop, std::shared_ptr<OpenEndpoints> endpoints, const QueuePairOptions& options,
                 std::shared_ptr<QueuePairEvents> events);
  ~IwarpQueuePair() override;

  /** For its owner: who lets go of it closes it. */
  std::shared_ptr<QueuePair> handle();

  /** One of the two, once. Loop's thread. */
  void connect(const Address& to, std::chrono::milliseconds timeout);
  void accept(IncomingConnection incoming);

  // ---- QueuePair: the owner's thread ----

  void postReceive(std::uint32_t workRequestId, Segment segment) override;
  void postSend(std::uint32_t workRequestId, std::span<const Segment> segments, std::optional<std::uint32_t> invalidate) override;
  void postWrite(std::uint32_t workRequestId, Segment segment, RemoteAddress to) override;
  void postRead(std::uint32_t workRequestId, Segment segment, RemoteAddress from) override;
  RemoteAddress advertise(Segment segment, Access access) override;
  void revoke(std::uint32_t tag) override;
  void cork() override;
  void uncork() override;
  void close(CloseMode mode) override;

  // ---- the loop's thread ----

  void abandon() noexcept override;
  void socketReady(SocketLoop::Readiness readiness) noexcept override;

 private:
  enum class Phase : std::uint8_t {
    begun,
    /** TCP's turn. */
    connecting,
    /** The MPA request is sent. */
    requesting,
    /** Responder: the initiator is to send the first message. */
    awaitingRtr,
    open,
    /** An orderly end: what is posted is still being sent. */
    draining,
    /** All is sent; the peer's end is awaited. */
    halfClosed,
    ended,
  };

  /** What happens to the socket at the end. */
  enum class Farewell : std::uint8_t { close, reset, terminate };

  // Any thread.
  void pump(std::size_t budget) noexcept;
  void pumpPosted();
  void deliver() noexcept;
  bool transmit(std::size_t budget) noexcept;
  void announce();

  // The loop's thread.
  void sendRequest();
  void readReply();
  void settle(const MpaFrame& reply);
  void open(const MpaAgreement& agreement, std::vector<std::byte> privateData);
  void tellEstablished();
  void receive() noexcept;
  bool receiveOnce(std::size_t& budget) noexcept;
  void firstFrameCame();
  void letTransmit();
  void closeOnLoop(CloseMode mode);
  void finishIfDrained();
  void peerClosed();
  void broken(int error);
  void violated();
  void terminated();
  void end(Failure failure, Farewell farewell, std::span<const std::byte> terminatePayload = {}) noexcept;
  void startTimer(std::chrono::milliseconds delay, void (IwarpQueuePair::*then)());
  void timedOut();

  const std::shared_ptr<SocketLoop> loop_;
  const std::shared_ptr<OpenEndpoints> endpoints_;
  const QueuePairOptions options_;
  WorkQueues queues_;

  // Loop's thread only; the socket's number also under `transmitLock_`, from `open` on.
  Descriptor socket_;
  Phase phase_ = Phase::begun;
  ConnectionFacts facts_;
  bool isEndNear_ = false;
  /** A task to go on receiving is posted. */
  bool isReceiveDue_ = false;
  std::vector<std::byte> mpaInput_;
  std::optional<SocketLoop::TimerId> timer_;

  /** Held while events are told, so that completions keep their order whichever thread tells them. No other lock is taken in front of it. */
  std::mutex deliveryLock_;
  std::shared_ptr<QueuePairEvents> events_;
  /** Whether completions may be told: after `established`, before the end. */
  bool isDelivering_ = false;
  std::vector<Completion> batch_;

  /** Owner's thread. */
  bool isCorked_ = false;

  std::mutex receiveLock_;
  std::unique_ptr<Receiver> receiver_;

  std::mutex transmitLock_;
  std::unique_ptr<Transmitter> transmitter_;
  bool mayTransmit_ = false;
  bool isBlocked_ = false;
  /** Sending has met a reset. The socket tells of it once; to the receiving side it looks like an end in order from then on. */
  bool wasReset_ = false;

  /** Written with both locks held, read with one of them. */
  bool isCut_ = false;
  /** Calls of `pump` that nobody has looked after. */
  std::atomic<std::uint32_t> wanted_{0};
  /** A task to go on sending is posted. */
  std::atomic<bool> isPumpDue_{false};
  std::atomic<bool> isClosing_{false};
};

}  // namespace iserfs::rdma::iwarp
