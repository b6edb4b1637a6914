#include "socket_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <future>

namespace iserfs::rdma::iwarp {

namespace {

/** The others stay ready, and the event loop comes back for them when it has looked at everything else. */
constexpr std::size_t mostSocketsInATurn = 16;

}  // namespace

SocketLoop::SocketLoop()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wakeUp_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      alarm_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
  if (!epoll_ || !wakeUp_ || !alarm_) throw ProviderError({FailureCode::resources, errorText(errno)});
  for (const Descriptor* own : {&wakeUp_, &alarm_}) {
    epoll_event event{};
    // Told once for each signal: neither need be read.
    event.events = EPOLLIN | EPOLLET;
    event.data.fd = own->number();
    if (::epoll_ctl(epoll_.number(), EPOLL_CTL_ADD, own->number(), &event) != 0) {
      throw ProviderError({FailureCode::resources, errorText(errno)});
    }
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
  // In its turn the loop looks for tasks before it ends.
  if (isFirst && !(isLoopThread() && isTurning_)) wake();
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
  if (!isTurning_) setAlarm();
  return id;
}

void SocketLoop::stopTimer(TimerId timer) noexcept {
  const auto found = timerTimes_.find(timer);
  if (found == timerTimes_.end()) return;
  timers_.erase({found->second, timer});
  timerTimes_.erase(found);
}

void SocketLoop::runTimers() noexcept {
  while (!timers_.empty()) {
    const auto first = timers_.begin();
    if (first->first.first > Clock::now()) return;
    const Task task = std::move(first->second);
    timerTimes_.erase(first->first.second);
    timers_.erase(first);
    task();
  }
}

/** For the first timer there is. One that was stopped leaves a turn with nothing to do. */
void SocketLoop::setAlarm() noexcept {
  if (timers_.empty() || timers_.begin()->first.first == alarmTime_) return;
  alarmTime_ = timers_.begin()->first.first;
  const auto sinceBoot = std::max<std::chrono::nanoseconds>(alarmTime_.time_since_epoch(), std::chrono::nanoseconds(1));
  const auto seconds = std::chrono::floor<std::chrono::seconds>(sinceBoot);
  itimerspec at{};
  at.it_value.tv_sec = seconds.count();
  at.it_value.tv_nsec = (sinceBoot - seconds).count();
  static_cast<void>(::timerfd_settime(alarm_.number(), TFD_TIMER_ABSTIME, &at, nullptr));
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

void SocketLoop::turn() noexcept {
  thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  isTurning_ = true;
  std::array<epoll_event, mostSocketsInATurn> events{};
  const int count = ::epoll_wait(epoll_.number(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.fd == alarm_.number()) alarmTime_ = Clock::time_point::max();
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
  runTimers();
  runTasks();
  setAlarm();
  isTurning_ = false;
  const std::lock_guard guard(lock_);
  if (!tasks_.empty()) wake();
}

void SocketLoop::end() noexcept {
  std::vector<Task> dropped;
  {
    const std::lock_guard guard(lock_);
    isStopped_ = true;
    dropped.swap(tasks_);
  }
  handlers_.clear();
  timers_.clear();
  timerTimes_.clear();
}

}  // namespace iserfs::rdma::iwarp
