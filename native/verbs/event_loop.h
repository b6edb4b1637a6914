/**
 * The provider's one thread: waits for file descriptors, timers, tasks and completion queues, and sleeps when there is nothing.
 *
 * After work it polls completion queues for a bounded time before it arms and sleeps. The time adapts: it doubles when polling
 * found something and halves when it was in vain, so that a busy connection is served without wake-ups and an idle one costs nothing.
 *
 * It knows nothing of RDMA but that there are sources of completions that can be polled and armed.
 */
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace iserfs::rdma::verbs {

/** Something that completions come from. All methods: loop thread. */
class CompletionSource {
 public:
  virtual ~CompletionSource() = default;
  /** Takes what is there and tells its owner. Whether there was anything. */
  virtual bool poll() = 0;
  /** Asks for a wake-up at the next completion. False where there is nothing to wake up for. */
  virtual bool arm() = 0;
  virtual std::shared_ptr<CompletionSource> self() = 0;
};

class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using Task = std::function<void()>;
  using Timers = std::multimap<Clock::time_point, Task>;
  using Timer = Timers::iterator;

  /** Throws std::system_error. */
  EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
  /** Any thread, after `stop`. */
  ~EventLoop();

  /** Runs what was posted, then ends the thread and waits for it. Any other thread. Idempotent. */
  void stop();

  /** `task` runs on the loop's thread, in the order of posting. Dropped (false) after `stop`. Any thread. */
  bool post(Task task);
  /** Runs `task` on the loop's thread and waits for it; what it throws comes out here. False if the loop has stopped. Any thread. */
  bool run(const Task& task);
  bool isThisThread() const noexcept { return std::this_thread::get_id() == thread_.get_id(); }

  // Loop thread:

  /** Calls `readable` whenever `fd` can be read, until `unwatch`. Throws std::system_error. */
  void watch(int fd, Task readable);
  void unwatch(int fd) noexcept;
  Timer startTimer(std::chrono::milliseconds delay, Task task);
  void cancelTimer(Timer timer) { timers_.erase(timer); }
  /** There was activity at `source`: polls it for a while. */
  void heat(std::shared_ptr<CompletionSource> source);

 private:
  void main() noexcept;
  void runTasks();
  void runTimers();
  /** Polls the hot sources until there is something or the time is up; then arms and lets go of those. */
  void pollSources();
  bool pollOnce();
  void coolDown();
  int millisecondsToSleep() const;
  void wake() noexcept;

  int epollFd_ = -1;
  int wakeFd_ = -1;
  std::unordered_map<int, std::shared_ptr<Task>> watched_;
  Timers timers_;
  std::vector<std::shared_ptr<CompletionSource>> hot_;
  std::chrono::nanoseconds patience_;

  std::mutex mutex_;
  std::vector<Task> tasks_;
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace iserfs::rdma::verbs
