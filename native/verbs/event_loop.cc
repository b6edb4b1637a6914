/** The thread behind event_loop.h: epoll, an eventfd to wake it, an ordered map of timers, and the spinning in between. */
#include "verbs/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

namespace iserfs::rdma::verbs {

namespace {

using namespace std::chrono_literals;

constexpr std::chrono::nanoseconds shortestPatience = 2us;
constexpr std::chrono::nanoseconds longestPatience = 64us;

std::system_error systemError(const char* what) { return {errno, std::generic_category(), what}; }

void relaxProcessor() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

EventLoop::EventLoop() : patience_(shortestPatience) {
  epollFd_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (epollFd_ < 0) throw systemError("epoll_create1");
  wakeFd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wakeFd_;
  if (wakeFd_ < 0 || ::epoll_ctl(epollFd_, EPOLL_CTL_ADD, wakeFd_, &event) != 0) {
    const auto error = systemError("eventfd");
    ::close(epollFd_);
    if (wakeFd_ >= 0) ::close(wakeFd_);
    throw error;
  }
  thread_ = std::thread([this] { main(); });
}

EventLoop::~EventLoop() {
  stop();
  ::close(wakeFd_);
  ::close(epollFd_);
}

void EventLoop::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake();
  if (thread_.joinable()) thread_.join();
}

bool EventLoop::post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    tasks_.push_back(std::move(task));
  }
  wake();
  return true;
}

bool EventLoop::run(const Task& task) {
  if (isThisThread()) {
    task();
    return true;
  }
  std::packaged_task<void()> packaged(task);
  auto done = packaged.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    tasks_.emplace_back([&packaged] { packaged(); });
  }
  wake();
  done.get();
  return true;
}

void EventLoop::wake() noexcept {
  const std::uint64_t one = 1;
  static_cast<void>(::write(wakeFd_, &one, sizeof one) < 0);
}

void EventLoop::watch(int fd, Task readable) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (::epoll_ctl(epollFd_, EPOLL_CTL_ADD, fd, &event) != 0) throw systemError("epoll_ctl");
  watched_[fd] = std::make_shared<Task>(std::move(readable));
}

void EventLoop::unwatch(int fd) noexcept {
  if (watched_.erase(fd) != 0) ::epoll_ctl(epollFd_, EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::Timer EventLoop::startTimer(std::chrono::milliseconds delay, Task task) {
  return timers_.emplace(Clock::now() + delay, std::move(task));
}

void EventLoop::heat(std::shared_ptr<CompletionSource> source) {
  if (std::find(hot_.begin(), hot_.end(), source) == hot_.end()) hot_.push_back(std::move(source));
}

void EventLoop::main() noexcept {
  std::array<epoll_event, 32> events;
  for (;;) {
    runTasks();
    runTimers();
    pollSources();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ && tasks_.empty()) break;
    }
    const int count = ::epoll_wait(epollFd_, events.data(), static_cast<int>(events.size()), millisecondsToSleep());
    for (int i = 0; i < count; i++) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == wakeFd_) {
        std::uint64_t wakeUps;
        static_cast<void>(::read(wakeFd_, &wakeUps, sizeof wakeUps) < 0);
        continue;
      }
      const auto found = watched_.find(fd);
      if (found == watched_.end()) continue;
      const std::shared_ptr<Task> readable = found->second;
      (*readable)();
    }
  }
  hot_.clear();
  timers_.clear();
}

int EventLoop::millisecondsToSleep() const {
  if (!hot_.empty()) return 0;
  if (timers_.empty()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - Clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
}

void EventLoop::runTasks() {
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (auto& task : tasks) {
    task();
    task = nullptr;
  }
}

void EventLoop::runTimers() {
  const auto now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    const auto node = timers_.extract(timers_.begin());
    node.mapped()();
  }
}

void EventLoop::pollSources() {
  if (hot_.empty()) return;
  const auto until = Clock::now() + patience_;
  do {
    if (pollOnce()) {
      patience_ = std::min(patience_ * 2, longestPatience);
      return;
    }
    relaxProcessor();
  } while (Clock::now() < until);
  patience_ = std::max(patience_ / 2, shortestPatience);
  coolDown();
}

bool EventLoop::pollOnce() {
  bool any = false;
  // By index and through a copy: what a completion leads to may heat further sources.
  for (std::size_t i = 0; i < hot_.size(); i++) {
    const auto source = hot_[i];
    any |= source->poll();
  }
  return any;
}

void EventLoop::coolDown() {
  std::vector<std::shared_ptr<CompletionSource>> cooling;
  cooling.swap(hot_);
  for (auto& source : cooling) {
    // What completed before it was armed wakes nobody: looked at once more.
    if (source->arm() && source->poll()) heat(std::move(source));
  }
}

}  // namespace iserfs::rdma::verbs
