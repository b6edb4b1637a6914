/**
 * The event loop of the software provider, which turns inside of another: it knows which of its sockets are ready (epoll), runs what it
 * is handed, and keeps time. It knows no protocol. Readiness is edge-triggered: whoever is told has to go on until the socket would block.
 *
 * The loop's thread is the one that gives it turns, before the first the one that made it. Objects that outlive their provider may keep
 * a `SocketLoop`; what is handed to it after its end is dropped.
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
  /** Runs `task` and waits for it; where this is the loop's thread at once, before what is posted. Any thread. */
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

  /** Readable when a turn is due. */
  int descriptor() const noexcept { return epoll_.number(); }
  /** Does what there is to do now. Not from inside a turn. */
  void turn() noexcept;
  /** No turn follows: it lets go of everything. Loop's thread, or when that has ended. */
  void end() noexcept;

 private:
  bool isLoopThread() const noexcept { return std::this_thread::get_id() == thread_.load(std::memory_order_relaxed); }
  void wake() noexcept;
  void runTasks() noexcept;
  void runTimers() noexcept;
  void setAlarm() noexcept;

  Descriptor epoll_;
  Descriptor wakeUp_;
  Descriptor alarm_;
  std::atomic<std::thread::id> thread_{std::this_thread::get_id()};

  std::mutex lock_;
  std::vector<Task> tasks_;
  bool isStopped_ = false;

  // The loop's thread only.
  std::unordered_map<int, std::shared_ptr<Handler>> handlers_;
  std::map<std::pair<Clock::time_point, TimerId>, Task> timers_;
  std::unordered_map<TimerId, Clock::time_point> timerTimes_;
  TimerId lastTimer_ = 0;
  /** When `alarm_` is set to go off. */
  Clock::time_point alarmTime_ = Clock::time_point::max();
  bool isTurning_ = false;
};

}  // namespace iserfs::rdma::iwarp
