/**
 * What the tests share: events that are waited for, memory with patterns, bytes in hexadecimal, and two queue pairs that are
 * connected through loopback. Waiting is bounded; what does not come is a failed test.
 */
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "provider.h"
#include "turning_thread.h"

namespace iserfs::test {

using namespace iserfs::rdma;

/** `"4d 50 41"`, with any white space. */
std::vector<std::byte> bytesOf(std::string_view hexadecimal);
std::string hexOf(std::span<const std::byte> bytes);

/** Memory of its own arena, of that length or a part of it. */
Segment memory(std::uint32_t length);
Segment part(const Segment& of, std::uint32_t offset, std::uint32_t length);
/** A pattern that repeats nowhere near. */
void fillPattern(const Segment& segment, std::uint32_t seed);
bool hasPattern(const Segment& segment, std::uint32_t seed);
bool isFilledWith(const Segment& segment, std::byte value);

/** Repeats `condition` until it is true; false after five seconds. */
bool eventually(const std::function<bool()>& condition);

/** Notes what happens to a queue pair. Any thread. */
class Recorder final : public QueuePairEvents {
 public:
  void established(const ConnectionFacts& facts) noexcept override;
  void completed(std::span<const Completion> completions) noexcept override;
  void closed(const Failure& failure) noexcept override;

  /** Each waits at most five seconds; nothing then. */
  std::optional<ConnectionFacts> waitEstablished();
  /** The next completion that nobody has taken. Nothing also when the connection has ended and all are taken. */
  std::optional<Completion> next();
  /** The next completion of that kind that nobody has taken. */
  std::optional<Completion> next(Opcode opcode);
  std::optional<Failure> waitClosed();

  bool isClosed();
  bool wasEstablished();
  /** Something came after `closed`, or `established` twice. */
  bool hasBrokenOrder();
  std::size_t batchCount();

 private:
  template <typename Condition>
  bool wait(std::unique_lock<std::mutex>& guard, Condition condition);

  std::mutex lock_;
  std::condition_variable changed_;
  std::optional<ConnectionFacts> facts_;
  std::optional<Failure> failure_;
  std::vector<Completion> completions_;
  std::size_t batches_ = 0;
  bool isOrderBroken_ = false;
};

/** Keeps the requests that come. */
class RequestRecorder final : public ListenerEvents {
 public:
  void requested(std::unique_ptr<ConnectionRequest> request) noexcept override;
  /** The next one; null after five seconds. */
  std::unique_ptr<ConnectionRequest> next();

 private:
  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<ConnectionRequest>> requests_;
};

Address addressOf(const Listener& listener);

struct End {
  std::shared_ptr<QueuePair> queuePair;
  std::shared_ptr<Recorder> events = std::make_shared<Recorder>();
};

/** Two providers' queue pairs, connected, as initiator and responder. */
struct Pair {
  explicit Pair(const QueuePairOptions& ofInitiator = {}, const QueuePairOptions& ofResponder = {},
                const std::string& host = "127.0.0.1");

  std::shared_ptr<Provider> initiatorProvider = threadedIwarpProvider();
  std::shared_ptr<Provider> responderProvider = threadedIwarpProvider();
  std::shared_ptr<RequestRecorder> requests = std::make_shared<RequestRecorder>();
  std::unique_ptr<Listener> listener;
  End initiator;
  End responder;
};

}  // namespace iserfs::test
