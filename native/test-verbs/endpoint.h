/** Two ends of a connection, for tests: what happened at each, and waiting for it. */
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "provider.h"

namespace iserfs::rdma::test {

/** Skips the test case where there is no device to test with. */
#define REQUIRE_DEVICE() \
  if (!::iserfs::rdma::test::deviceAddress()) return

/** ISERFS_VERBS_ADDRESS: an address of an RDMA device. */
std::optional<std::string> deviceAddress();
Address addressOf(const Listener& listener);

/** One end: records events, in order, and keeps an arena to send from and receive into. */
class Endpoint : public QueuePairEvents {
 public:
  explicit Endpoint(std::size_t arenaLength = 1 << 20) : arena(Arena::allocate(arenaLength)) {}

  void established(const ConnectionFacts& facts) noexcept override;
  void completed(std::span<const Completion> completions) noexcept override;
  void closed(const Failure& failure) noexcept override;

  /** Waits until `condition` holds (called with the lock held) or ten seconds are over. */
  bool waitFor(const std::function<bool()>& condition);
  bool waitEstablished();
  /** What `closed` said; a text of its own if it does not come. */
  Failure waitClosed();
  /** The completion of a request; status `failed` and id 0xffffffff if it does not come. */
  Completion waitCompleted(Opcode opcode, std::uint32_t workRequestId);
  std::size_t count(Opcode opcode);
  std::size_t count(Opcode opcode, Status status);

  Segment segment(std::size_t offset, std::size_t length) const;
  std::byte* at(std::size_t offset) const { return arena->data() + offset; }
  void fill(std::size_t offset, std::size_t length, unsigned int seed) const;
  bool holds(std::size_t offset, std::size_t length, unsigned int seed) const;

  std::shared_ptr<Arena> arena;
  std::shared_ptr<QueuePair> queuePair;

  // Guarded by `mutex`.
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<ConnectionFacts> facts;
  std::vector<Completion> completions;
  std::optional<Failure> failure;
  /** Events after `closed`, or completions before `established`. */
  int outOfOrder = 0;
};

/** Hands over requests as they come. */
class Requests : public ListenerEvents {
 public:
  void requested(std::unique_ptr<ConnectionRequest> request) noexcept override;
  std::unique_ptr<ConnectionRequest> next();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<ConnectionRequest>> waiting_;
};

struct PairOptions {
  QueuePairOptions initiator;
  QueuePairOptions target;
  std::size_t arenaLength = 1 << 20;
};

/** An established connection of one provider with itself. */
struct Pair {
  explicit Pair(PairOptions options = {});
  Pair(std::shared_ptr<Provider> provider, PairOptions options = {});
  ~Pair();

  bool isIwarp();
  bool hasWindows();
  void closeBoth();

  std::shared_ptr<Provider> provider;
  std::shared_ptr<Requests> requests = std::make_shared<Requests>();
  std::unique_ptr<Listener> listener;
  std::shared_ptr<Endpoint> initiator;
  std::shared_ptr<Endpoint> target;
};

std::vector<std::byte> bytesOf(const std::string& text);

}  // namespace iserfs::rdma::test
