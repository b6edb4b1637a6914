#include "socket_loop.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <future>
#include <system_error>

namespace iserfs::rdma::iwarp {

SocketLoop::SocketLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wakeUp_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_ || !wakeUp_) throw ProviderError({FailureCode::resources, errorText(errno)});
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wakeUp_.number();
  if (::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, wakeUp_.number(), &event) != 0) {
    throw ProviderError({FailureCode::resources, errorText(errno)});
  }
}

bool SocketLoop::post(Task task) {
  bool isFirst = false;
  {
    const std::lock_guard guard(lock_);
    if (isStopped_) return false;
    isFirst = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  // The loop looks at its tasks before it sleeps, so its own thread need not wake it.
  if (isFirst && !isLoopThread()) wake();
  return true;
}

void SocketLoop::runAndWait(const Task& task) {
  if (isLoopThread()) return task();
  // The promise is owned by the task: it breaks, and ends the waiting, where the loop drops it.
  auto done = std::make_shared<std::promise<void>>();
  auto future = done->get_future();
  if (!post([task, done = std::move(done)] {
        task();
        done->set_value();
      })) {
    return;
  }
  future.wait();
}

void SocketLoop::wake() noexcept {
  const std::uint64_t one = 1;
  // It can only fail where it is signalled already.
  static_cast<void>(!::write(wakeUp_.number(), &one, sizeof one));
}

bool SocketLoop::add(const Descriptor& socket, std::shared_ptr<Handler> handler) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.fd = socket.number();
  if (::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, socket.number(), &event) != 0) return false;
  handlers_[socket.number()] = std::move(handler);
  return true;
}

void SocketLoop::remove(const Descriptor& socket) noexcept {
  if (handlers_.erase(socket.number()) > 0) ::epoll_ctl(epoll_.number(), EPOLL_CTL_DEL, socket.number(), nullptr);
}

SocketLoop::TimerId SocketLoop::startTimer(Clock::duration delay, Task task) {
  const TimerId id = ++lastTimer_;
  const Clock::time_point at = Clock::now() + delay;
  timers_.emplace(std::pair(at, id), std::move(task));
  timerTimes_.emplace(id, at);
  return id;
}

void SocketLoop::stopTimer(TimerId timer) noexcept {
  const auto found = timerTimes_.find(timer);
  if (found == timerTimes_.end()) return;
  timers_.erase({found->second, timer});
  timerTimes_.erase(found);
}

/** Returns how many milliseconds to sleep at most; -1 for ever. */
int SocketLoop::runTimers() noexcept {
  while (!timers_.empty()) {
    const auto first = timers_.begin();
    const auto left = first->first.first - Clock::now();
    if (left > Clock::duration::zero()) {
      const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(left).count();
      return static_cast<int>(std::min<decltype(milliseconds)>(milliseconds, 3'600'000));
    }
    const Task task = std::move(first->second);
    timerTimes_.erase(first->first.second);
    timers_.erase(first);
    task();
  }
  return -1;
}

/** Those that there are now: a task that posts itself again does not keep the sockets waiting. */
void SocketLoop::runTasks() noexcept {
  std::vector<Task> tasks;
  {
    const std::lock_guard guard(lock_);
    tasks.swap(tasks_);
  }
  for (Task& task : tasks) {
    task();
    // With what it holds, before the next.
    task = nullptr;
  }
}

void SocketLoop::run() noexcept {
  thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  std::array<epoll_event, 64> events{};
  for (;;) {
    runTasks();
    int sleep = runTimers();
    {
      const std::lock_guard guard(lock_);
      if (isStopped_) break;
      if (!tasks_.empty()) sleep = 0;
    }
    const int count = ::epoll_wait(epoll_.number(), events.data(), static_cast<int>(events.size()), sleep);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.fd == wakeUp_.number()) {
        std::uint64_t ignored = 0;
        static_cast<void>(!::read(wakeUp_.number(), &ignored, sizeof ignored));
        continue;
      }
      const auto found = handlers_.find(event.data.fd);
      if (found == handlers_.end()) continue;
      // It may remove itself.
      const std::shared_ptr<Handler> handler = found->second;
      const bool isBroken = (event.events & (EPOLLERR | EPOLLHUP)) != 0;
      const bool isEnding = isBroken || (event.events & EPOLLRDHUP) != 0;
      handler->socketReady({.readable = isEnding || (event.events & EPOLLIN) != 0,
                            .writable = isBroken || (event.events & EPOLLOUT) != 0,
                            .isEnding = isEnding});
    }
  }
  handlers_.clear();
  timers_.clear();
  timerTimes_.clear();
}

void SocketLoop::stop() noexcept {
  std::vector<Task> dropped;
  {
    const std::lock_guard guard(lock_);
    isStopped_ = true;
    dropped.swap(tasks_);
  }
  wake();
}

std::shared_ptr<LoopThread> LoopThread::shared() {
  static std::mutex lock;
  static std::weak_ptr<LoopThread> current;
  const std::lock_guard guard(lock);
  auto thread = current.lock();
  if (!thread) {
    thread = std::make_shared<LoopThread>();
    current = thread;
  }
  return thread;
}

LoopThread::LoopThread() : loop_(std::make_shared<SocketLoop>()) {
  // Signals are for the threads of the program.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([loop = loop_] { loop->run(); });
  } catch (const std::system_error& error) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw ProviderError({FailureCode::resources, std::string("no thread: ") + error.what()});
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_setname_np(thread_.native_handle(), "iserfs-iwarp");
}

LoopThread::~LoopThread() {
  loop_->stop();
  thread_.join();
}

}  // namespace iserfs::rdma::iwarp
