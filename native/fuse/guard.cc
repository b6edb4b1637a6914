#include "fuse/guard.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace iserfs::fuse {

namespace {

/** JavaScript may leave a request unread for two looks: one alone may come just as it is about to read. */
constexpr timespec lookEvery{.tv_sec = 0, .tv_nsec = 400'000};
/** Looks without any traffic before it sleeps. */
constexpr int quietLooks = 16;
/** As the guard reads in place of JavaScript: how many messages at once, and how long it waits for the next. */
constexpr std::size_t readAtOnce = 32;
constexpr int nextWithinMs = 1;

}  // namespace

Guard::Guard(Channel& channel, std::function<void()> wake)
    : channel_(channel), wake_(std::move(wake)), stopEvent_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!stopEvent_.isOpen()) throw std::system_error(errno, std::generic_category(), "eventfd");
  thread_ = std::thread([this] { run(); });
}

Guard::~Guard() {
  stopped_.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  static_cast<void>(::write(stopEvent_.get(), &one, sizeof one));
  thread_.join();
}

void Guard::run() {
  // Timers of a thread are late by 50 microseconds if it does not ask for less.
  ::prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
  ::prctl(PR_SET_NAME, "iserfs-guard", 0UL, 0UL, 0UL);
  while (!isStopped() && !channel_.hasEnded()) {
    if (sleepUntilTraffic()) watch();
  }
  if (!isStopped()) wake_();
}

bool Guard::sleepUntilTraffic() {
  if (!channel_.awaitSlot()) return waitReadable(-1);
  // Traffic is nothing to wake up for, but the end is: nobody else looks.
  pollfd all[3] = {{.fd = stopEvent_.get(), .events = POLLIN, .revents = 0},
                   {.fd = channel_.slotEvent(), .events = POLLIN, .revents = 0},
                   {.fd = channel_.device(), .events = 0, .revents = 0}};
  ::poll(all, 3, -1);
  if (all[2].revents != 0) channel_.noticeEnd();
  return false;
}

/** False also where it is to stop. */
bool Guard::waitReadable(int timeoutMs) {
  pollfd both[2] = {{.fd = stopEvent_.get(), .events = POLLIN, .revents = 0}, {.fd = channel_.device(), .events = POLLIN, .revents = 0}};
  return ::poll(both, 2, timeoutMs) > 0 && both[0].revents == 0 && both[1].revents != 0;
}

/** Until there is no traffic any more. */
void Guard::watch() {
  auto turns = turns_.load(std::memory_order_relaxed);
  auto messages = channel_.messagesRead();
  int quiet = 0;
  bool wasWaiting = false;
  while (quiet < quietLooks) {
    pollfd stop{.fd = stopEvent_.get(), .events = POLLIN, .revents = 0};
    ::ppoll(&stop, 1, &lookEvery, nullptr);
    if (isStopped() || channel_.hasEnded()) return;
    const auto turnsBefore = std::exchange(turns, turns_.load(std::memory_order_relaxed));
    const auto messagesBefore = std::exchange(messages, channel_.messagesRead());
    quiet = messages == messagesBefore ? quiet + 1 : 0;
    const bool isWaiting = turns == turnsBefore && channel_.canRead() && waitReadable(0);
    const bool isNeeded = isWaiting && wasWaiting;
    if (isNeeded) readInstead(turns);
    if (isWaiting) quiet = 0;
    wasWaiting = isWaiting && !isNeeded;
  }
}

/** For as long as JavaScript takes no turn. */
void Guard::readInstead(std::uint64_t turns) {
  do {
    const auto before = channel_.messagesRead();
    const bool wasInitialised = channel_.isInitialised();
    const auto end = channel_.read(readAtOnce);
    messagesRead_.fetch_add(channel_.messagesRead() - before, std::memory_order_relaxed);
    if ((channel_.hasMessages() || channel_.isInitialised() != wasInitialised) && !isStopped()) wake_();
    if (end == ReadEnd::starved || end == ReadEnd::busy || end == ReadEnd::ended) return;
  } while (!isStopped() && turns_.load(std::memory_order_relaxed) == turns && waitReadable(nextWithinMs));
}

}  // namespace iserfs::fuse
