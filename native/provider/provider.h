/**
 * RDMA at the level of verbs, whoever provides it: queue pairs that send, receive, write and read; memory that is advertised to
 * the peer for one purpose at a time; connections with private data. It knows nothing of iSCSI, of JavaScript, or of any other
 * provider. `src/iser/rdma/provider.ts` is the same interface one language up.
 *
 * Threads: methods are called on the thread that owns the provider object (the JavaScript thread), unless they say otherwise.
 * Events are called on a thread of the provider's, or from inside `turn` where it has none, one at a time for each queue pair or
 * listener, in the order in which things happened, never from inside a method (but for `completed`, see `uncork`) and never while the provider holds a lock that a method takes
 * (but for `uncork`, which no event may call).
 */
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "arena.h"

namespace iserfs::rdma {

enum class Opcode : std::uint8_t { send, receive, write, read };

enum class Status : std::uint8_t {
  success,
  /** The connection ended first. Nothing refers to the memory any more; what it holds is undefined. */
  flushed,
  /** This request was at fault or failed (memory, length, the peer refused it); the connection ends because of it. */
  failed,
};

/** What became of a work request. Each that was posted completes exactly once, also when the connection ends. */
struct Completion {
  std::uint32_t workRequestId = 0;
  Opcode opcode = Opcode::send;
  Status status = Status::success;
  /** Receive: the message was a Send with Invalidate, and `invalidatedTag` is revoked. */
  bool hasInvalidated = false;
  std::uint32_t invalidatedTag = 0;
  /** Receive: length of the message. Else the length of the request. */
  std::uint32_t byteLength = 0;
};

enum class FailureCode : std::uint8_t {
  /** The peer or this side closed the connection in order. */
  none,
  /** Nobody listens there. */
  refused,
  /** No way to that address, or (verbs) no device that routes to it. */
  unreachable,
  timedOut,
  /** The listener does not want this connection (CM reject, MPA reject). */
  rejected,
  /** The connection broke: reset, retries exceeded. */
  reset,
  /** The peer broke a rule: bad frame, CRC, STag, bounds, sequence number, no receive posted. */
  peerViolation,
  /** The peer ended the connection because of an error that it saw (RDMAP Terminate, remote error completion). */
  terminated,
  /** This machine's fault: memory, locked memory, file descriptors. */
  resources,
  /** No such provider, device or feature here. */
  unsupported,
  /** An address that cannot be used or is taken. */
  badAddress,
};

/** Why something ended or did not begin. `text` is a cause in words, lower case, without the peer's address. */
struct Failure {
  FailureCode code = FailureCode::none;
  std::string text;
};

struct ReceiveRequest {
  std::uint32_t workRequestId = 0;
  Segment segment;
};

/** How the peer is kept from memory beyond its command's, for `status`. */
enum class Protection : std::uint8_t {
  /** iwarp: an entry of the STag table for each advertisement, with exact bounds. */
  tag,
  /** verbs: a type 2 memory window for each advertisement. */
  window,
  /** verbs: a memory region for each advertisement. */
  region,
};

/** What is wanted of a queue pair. */
struct QueuePairOptions {
  /** Work requests that may be posted and not completed at a time. */
  std::uint32_t sendDepth = 256;
  std::uint32_t receiveDepth = 256;
  /** Advertisements that may be in force at a time. */
  std::uint32_t advertisementDepth = 256;
  /** RDMA Reads that the peer may have outstanding at us, and we at the peer. What is agreed may be less. */
  std::uint16_t ird = 16;
  std::uint16_t ord = 16;
  /** iwarp: ask for CRC32C (the initiator decides; a listener that is asked always does it). */
  bool crc = true;
  /** For connection management: at most 196 bytes. */
  std::vector<std::byte> privateData;
  /** Instead, where the peer cannot revoke what is advertised to it (`ConnectionFacts::canPeerInvalidate`). Unset: the same. */
  std::optional<std::vector<std::byte>> privateDataWithoutInvalidation = std::nullopt;
  /** Posted before the first message of the peer can arrive. */
  std::vector<ReceiveRequest> receives;
};

/** Facts about an established connection. Addresses are `ADDRESS:PORT`, IPv6 in brackets. */
struct ConnectionFacts {
  /** `rxe0`, `siw0`, `mlx5_0`; for iwarp `software`. */
  std::string device;
  /** `iWARP`, `RoCE`, `InfiniBand`. */
  std::string fabric;
  std::string localAddress;
  std::string remoteAddress;
  /** As agreed. */
  std::uint16_t ird = 0;
  std::uint16_t ord = 0;
  /** Unset where the fabric has its own. */
  std::optional<bool> crc;
  Protection protection = Protection::tag;
  /** Whether a Send with Invalidate of the peer revokes what is advertised to it. Else it must not send any: it may end the connection. */
  bool canPeerInvalidate = true;
  /** The peer's. Some fabrics pad it with zeros. */
  std::vector<std::byte> privateData;
};

class QueuePairEvents {
 public:
  virtual ~QueuePairEvents() = default;
  /** First event, unless `closed` is. Both ways may be used from now on. */
  virtual void established(const ConnectionFacts& facts) noexcept = 0;
  virtual void completed(std::span<const Completion> completions) noexcept = 0;
  /**
   * Last event. Everything posted has completed, everything advertised is revoked, nothing refers to memory any more. Comes by
   * itself when the peer closes or something fails, and after `close`.
   */
  virtual void closed(const Failure& failure) noexcept = 0;
};

/** Where the peer's memory is, in the peer's terms. */
struct RemoteAddress {
  std::uint32_t tag = 0;
  std::uint64_t address = 0;
};

enum class Access : std::uint8_t {
  /** The peer may write to it (RDMA Write). */
  remoteWrite,
  /** The peer may read from it (RDMA Read). */
  remoteRead,
};

enum class CloseMode : std::uint8_t {
  /** Sends what is posted first, tells the peer, and waits a bounded time for its end. */
  orderly,
  abrupt,
};

/**
 * A connection. Posting takes effect in order. Posting to a connection that has ended, or is ending, completes as `flushed`.
 * More than the depths allow throws std::length_error. A segment that is not within its arena throws std::out_of_range.
 */
class QueuePair {
 public:
  virtual ~QueuePair() = default;

  virtual void postReceive(std::uint32_t workRequestId, Segment segment) = 0;
  /** One message of one or two segments. `invalidate`: revokes that tag of the peer's with it. */
  virtual void postSend(std::uint32_t workRequestId, std::span<const Segment> segments, std::optional<std::uint32_t> invalidate) = 0;
  /** RDMA Write. Length 0 is legal, moves nothing and needs no valid tag. */
  virtual void postWrite(std::uint32_t workRequestId, Segment segment, RemoteAddress to) = 0;
  /** RDMA Read. Waits by itself while `ord` of them are outstanding, and holds up nothing that the peer does not require. */
  virtual void postRead(std::uint32_t workRequestId, Segment segment, RemoteAddress from) = 0;

  /**
   * Gives the peer access to exactly `segment`. In force before anything that is posted afterwards is sent. The address is below
   * 2^53. Throws std::system_error where memory or the device has no more, std::length_error beyond the depth. Where the connection
   * has ended, or is ending, there may be no access to give, and the tag means nothing.
   */
  virtual RemoteAddress advertise(Segment segment, Access access) = 0;
  /**
   * Takes it back: when this returns the peer cannot reach the memory and no transfer under way touches it, if need be because the
   * connection was ended. A tag that is not in force (revoked, invalidated by the peer) is ignored.
   */
  virtual void revoke(std::uint32_t tag) = 0;

  /**
   * What is posted from now on may wait for `uncork`, so that it goes out together; nothing is ever held up beyond that. Only a hint:
   * the default is to do nothing.
   */
  virtual void cork() {}
  /** Takes that back. `completed` may be called from inside, for what is done by that: on the owner's thread. */
  virtual void uncork() {}

  /** Idempotent; `abrupt` cuts `orderly` short. `closed` comes when it is done. */
  virtual void close(CloseMode mode) = 0;
};

/** Someone wants to connect. Answer it once; destroyed without an answer it is rejected. Any thread. */
class ConnectionRequest {
 public:
  virtual ~ConnectionRequest() = default;
  virtual std::string remoteAddress() const = 0;
  virtual std::span<const std::byte> privateData() const = 0;
  /** `established` comes when the peer can be sent to. Owner's thread. */
  virtual std::shared_ptr<QueuePair> accept(const QueuePairOptions& options, std::shared_ptr<QueuePairEvents> events) = 0;
  virtual void reject() = 0;
};

class ListenerEvents {
 public:
  virtual ~ListenerEvents() = default;
  virtual void requested(std::unique_ptr<ConnectionRequest> request) noexcept = 0;
};

/** Listens until destroyed. */
class Listener {
 public:
  virtual ~Listener() = default;
  /** With the port that was picked. */
  virtual std::string localAddress() const = 0;
};

/** Numeric address (IPv4 or IPv6) and TCP port, or its like in the fabric. */
struct Address {
  std::string host;
  std::uint16_t port = 0;
};

class Provider {
 public:
  /** Waits for its threads. Every queue pair and listener must be gone or is closed abruptly. */
  virtual ~Provider() = default;
  /** Returns at once; `established` or `closed` tells. `timeoutMs` bounds everything up to then. */
  virtual std::shared_ptr<QueuePair> connect(const Address& to, const QueuePairOptions& options, std::uint32_t timeoutMs,
                                             std::shared_ptr<QueuePairEvents> events) = 0;
  /** Port 0 picks a free one. Throws `ProviderError`. */
  virtual std::unique_ptr<Listener> listen(const Address& at, std::shared_ptr<ListenerEvents> events) = 0;

  /** Of a provider that has no thread: readable when it is to be given a turn. -1: it has one. */
  virtual int turnDescriptor() const noexcept { return -1; }
  /** Does what there is to do now, and tells events from inside. Not from inside an event. */
  virtual void turn() noexcept {}
};

/** What `listen` and the makers of providers throw. */
class ProviderError : public std::exception {
 public:
  explicit ProviderError(Failure failure) : failure_(std::move(failure)) {}
  const Failure& failure() const noexcept { return failure_; }
  const char* what() const noexcept override { return failure_.text.c_str(); }

 private:
  Failure failure_;
};

/** An RDMA device, for `iserfs` to say what there is. */
struct DeviceFacts {
  std::string name;
  std::string fabric;
};

/** Software iWARP over TCP sockets (`native/iwarp`), without a thread. Throws `ProviderError` with `resources`. */
std::shared_ptr<Provider> makeIwarpProvider();
/** libibverbs and librdmacm (`native/verbs`). Throws `ProviderError` with `unsupported` where there is no library or no device. */
std::shared_ptr<Provider> makeVerbsProvider();
/** Throws like `makeVerbsProvider`. */
std::vector<DeviceFacts> listVerbsDevices();

}  // namespace iserfs::rdma
