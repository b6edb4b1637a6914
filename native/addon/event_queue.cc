#include "addon/event_queue.h"

#include <utility>

namespace iserfs::addon {

void EventQueue::pushCompletions(std::uint32_t owner, std::span<const rdma::Completion> completions) noexcept {
  const std::lock_guard lock(mutex_);
  if (stopped_ || completions.empty()) return;
  for (const auto& completion : completions) {
    pending_.events.push_back({.owner = owner, .kind = EventKind::completion, .notice = 0, .completion = completion});
  }
  wake();
}

void EventQueue::pushNotice(std::uint32_t owner, EventKind kind, Notice notice) noexcept {
  // A notice that is dropped is destroyed after the lock is released: a request that goes without an answer calls its provider.
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  const auto place = static_cast<std::uint32_t>(pending_.notices.size());
  pending_.notices.push_back(std::move(notice));
  pending_.events.push_back({.owner = owner, .kind = kind, .notice = place, .completion = {}});
  wake();
}

void EventQueue::wake() {
  if (std::exchange(awake_, true)) return;
  wake_();
}

void EventQueue::take(Batch& batch) {
  const std::lock_guard lock(mutex_);
  std::swap(batch, pending_);
  awake_ = false;
}

void EventQueue::stop() {
  Batch dropped;
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  std::swap(dropped, pending_);
}

void ConnectionSink::established(const rdma::ConnectionFacts& facts) noexcept {
  queue_->pushNotice(owner_, EventKind::established, facts);
}

void ConnectionSink::completed(std::span<const rdma::Completion> completions) noexcept {
  queue_->pushCompletions(owner_, completions);
}

void ConnectionSink::closed(const rdma::Failure& failure) noexcept {
  hasEnded_.store(true, std::memory_order_release);
  queue_->pushNotice(owner_, EventKind::closed, failure);
}

void ListenerSink::requested(std::unique_ptr<rdma::ConnectionRequest> request) noexcept {
  queue_->pushNotice(owner_, EventKind::requested, std::move(request));
}

}  // namespace iserfs::addon
