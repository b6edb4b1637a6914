/**
 * A thread that reads what the kernel asks while the event loop has no time for it, so that what can be answered from memory is
 * answered then too. While there is traffic it sleeps for as long as a request may wait since JavaScript took its last turn, and
 * looks; without traffic it sleeps until there is some, and without a slot until there is one. Knows no event loop: JavaScript tells
 * of its turns, and is woken for what is left to it.
 */
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "fuse/channel.h"
#include "fuse/descriptor.h"

namespace iserfs::fuse {

class Guard {
 public:
  /** `wake` is called on the guard's thread when there is something for JavaScript, or the connection has ended. Throws std::system_error. */
  Guard(Channel& channel, std::function<void()> wake);
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  /** Ends the thread: `wake` is not called any more. Thread: not the guard's. */
  ~Guard();

  /** JavaScript reads now. Any thread. */
  void countTurn() noexcept { lastTurn_.store(Clock::now(), std::memory_order_relaxed); }
  /** Messages that were read by the guard. */
  std::uint64_t messagesRead() const noexcept { return messagesRead_.load(std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;

  // Thread: the guard's.
  void run();
  bool sleepUntilTraffic();
  void watch();
  bool isLeftAlone(Clock::time_point lastTurn);
  void readInstead(Clock::time_point lastTurn);
  void sleep(Clock::duration time);
  bool waitReadable(int timeoutMs);
  bool isStopped() const noexcept { return stopped_.load(std::memory_order_acquire); }

  Channel& channel_;
  const std::function<void()> wake_;
  Descriptor stopEvent_;
  std::atomic<bool> stopped_{false};
  std::atomic<Clock::time_point> lastTurn_{Clock::time_point()};
  std::atomic<std::uint64_t> messagesRead_{0};
  std::thread thread_;
};

}  // namespace iserfs::fuse
