/**
 * The way from provider threads to the JavaScript thread: one queue for an environment, in which completions and everything else
 * that happens to connections and listeners keep their order. However much is pushed before the JavaScript thread comes to take
 * it, there is one wake-up. Knows no N-API: how to wake is given to it.
 */
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <variant>
#include <vector>

#include "provider/provider.h"

namespace iserfs::addon {

enum class EventKind : std::uint8_t { completion, established, closed, requested };

/** One event. `owner` is the number of the connection or listener. Of what is no completion, `notice` is the place in `Batch::notices`. */
struct Event {
  std::uint32_t owner = 0;
  EventKind kind = EventKind::completion;
  std::uint32_t notice = 0;
  rdma::Completion completion;
};

/** What an event other than a completion brings along: of `established`, `closed` and `requested`, in this order. */
using Notice = std::variant<rdma::ConnectionFacts, rdma::Failure, std::unique_ptr<rdma::ConnectionRequest>>;

/** Events in order. */
struct Batch {
  std::vector<Event> events;
  std::vector<Notice> notices;
};

class EventQueue {
 public:
  /** `wake` is called by whoever pushes, not again before `take` was, and not after `stop` has returned. */
  explicit EventQueue(std::function<void()> wake) : wake_(std::move(wake)) {}

  // Threads: the provider's, or JavaScript's where it has none. What comes after `stop` is dropped. Memory that runs out ends the process, as anywhere in Node.
  void pushCompletions(std::uint32_t owner, std::span<const rdma::Completion> completions) noexcept;
  void pushNotice(std::uint32_t owner, EventKind kind, Notice notice) noexcept;

  /** Everything that has been pushed; `batch` must be empty, and its memory is used for what comes next. JavaScript thread. */
  void take(Batch& batch);
  /** Drops what is in it, and what is still pushed. JavaScript thread. */
  void stop();

 private:
  /** Thread: any, with the lock held. */
  void wake();

  const std::function<void()> wake_;
  std::mutex mutex_;
  Batch pending_;
  bool awake_ = false;
  bool stopped_ = false;
};

/** Where a connection's events go. Threads: as for pushing, but for `hasEnded`. */
class ConnectionSink final : public rdma::QueuePairEvents {
 public:
  ConnectionSink(std::shared_ptr<EventQueue> queue, std::uint32_t owner) : queue_(std::move(queue)), owner_(owner) {}

  void established(const rdma::ConnectionFacts& facts) noexcept override;
  void completed(std::span<const rdma::Completion> completions) noexcept override;
  void closed(const rdma::Failure& failure) noexcept override;

  /** Whether `closed` was pushed: nothing that is posted now would be completed. Any thread. */
  bool hasEnded() const noexcept { return hasEnded_.load(std::memory_order_acquire); }

 private:
  const std::shared_ptr<EventQueue> queue_;
  const std::uint32_t owner_;
  std::atomic<bool> hasEnded_{false};
};

/** Where a listener's events go. Threads: as for pushing. */
class ListenerSink final : public rdma::ListenerEvents {
 public:
  ListenerSink(std::shared_ptr<EventQueue> queue, std::uint32_t owner) : queue_(std::move(queue)), owner_(owner) {}

  void requested(std::unique_ptr<rdma::ConnectionRequest> request) noexcept override;

 private:
  const std::shared_ptr<EventQueue> queue_;
  const std::uint32_t owner_;
};

}  // namespace iserfs::addon
