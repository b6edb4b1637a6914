/**
 * The thread of the software provider: it waits for all its sockets with epoll, runs what other threads hand it, and keeps time.
 * It knows no protocol. Readiness is edge-triggered: whoever is told has to go on until the socket would block.
 *
 * There is one in a process, as long as a provider uses it. Objects that outlive their provider may keep a `SocketLoop`; what is
 * handed to it after its thread has ended is dropped.
 */
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "socket.h"

namespace iserfs::rdma::iwarp {

class SocketLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using Task = std::function<void()>;

  struct Readiness {
    bool readable = false;
    bool writable = false;
    /** The peer has closed its direction, or the connection is broken: reading leads to the end, and nothing more will be told. */
    bool isEnding = false;
  };

  /** Someone with a socket. The loop keeps it from `add` to `remove`. */
  class Handler {
   public:
    virtual ~Handler() = default;
    /** Loop's thread. */
    virtual void socketReady(Readiness readiness) noexcept = 0;
  };

  /** Throws `ProviderError` (`resources`). */
  SocketLoop();
  SocketLoop(const SocketLoop&) = delete;
  SocketLoop& operator=(const SocketLoop&) = delete;

  /** Runs `task` on the loop's thread, in the order of posting. Any thread. False: the loop has ended, and dropped it. */
  bool post(Task task);
  /** The same, and waits until it has run; at once where this is the loop's thread. Any thread. */
  void runAndWait(const Task& task);

  /** Loop's thread. Tells at once if the socket is ready already. False: no memory for another socket. */
  bool add(const Descriptor& socket, std::shared_ptr<Handler> handler);
  /** Loop's thread. The handler hears no more of it, though it may be in the middle of hearing. Before the socket is closed. */
  void remove(const Descriptor& socket) noexcept;

  using TimerId = std::uint64_t;
  /** Loop's thread. Runs `task` once, `delay` from now. */
  TimerId startTimer(Clock::duration delay, Task task);
  /** Loop's thread. Ignores one that has run. */
  void stopTimer(TimerId timer) noexcept;

  /** Runs on the thread that it is called on, until `stop`. */
  void run() noexcept;
  /** Any thread. */
  void stop() noexcept;

 private:
  bool isLoopThread() const noexcept { return std::this_thread::get_id() == thread_.load(std::memory_order_relaxed); }
  void wake() noexcept;
  void runTasks() noexcept;
  int runTimers() noexcept;

  Descriptor epoll_;
  Descriptor wakeUp_;
  std::atomic<std::thread::id> thread_{};

  std::mutex lock_;
  std::vector<Task> tasks_;
  bool isStopped_ = false;

  /** Loop's thread only. */
  std::unordered_map<int, std::shared_ptr<Handler>> handlers_;
  std::map<std::pair<Clock::time_point, TimerId>, Task> timers_;
  std::unordered_map<TimerId, Clock::time_point> timerTimes_;
  TimerId lastTimer_ = 0;
};

/** The process's loop with its thread; the last owner ends it, and not on the loop's thread. */
class LoopThread {
 public:
  /** Any thread. Throws `ProviderError` (`resources`). */
  static std::shared_ptr<LoopThread> shared();

  LoopThread();
  ~LoopThread();
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  const std::shared_ptr<SocketLoop>& loop() const noexcept { return loop_; }

 private:
  std::shared_ptr<SocketLoop> loop_;
  std::thread thread_;
};

}  // namespace iserfs::rdma::iwarp
