#include "fuse/guard.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace iserfs::fuse {

namespace {

/** So long after its last turn JavaScript may leave a request unread. */
constexpr std::chrono::microseconds patience(800);
/** And so much longer, where there is one: it may have come just now, and JavaScript be about to read it. */
constexpr std::chrono::microseconds grace(100);
/** Looks without any traffic before it sleeps until there is some. */
constexpr int quietLooks = 8;
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
  auto messages = channel_.messagesRead();
  auto waitsSince = Clock::now();
  int quiet = 0;
  while (quiet < quietLooks) {
    sleep(waitsSince + patience - Clock::now());
    if (isStopped() || channel_.hasEnded()) return;
    const auto messagesBefore = std::exchange(messages, channel_.messagesRead());
    quiet = messages == messagesBefore ? quiet + 1 : 0;
    const auto lastTurn = lastTurn_.load(std::memory_order_relaxed);
    const auto now = Clock::now();
    if (now - lastTurn < patience) {
      waitsSince = lastTurn;
      continue;
    }
    waitsSince = now;
    if (!isLeftAlone(lastTurn)) continue;
    quiet = 0;
    sleep(grace);
    if (isLeftAlone(lastTurn)) readInstead(lastTurn);
  }
}

/** Whether there is a request, and JavaScript has not taken a turn since. */
bool Guard::isLeftAlone(Clock::time_point lastTurn) {
  return lastTurn_.load(std::memory_order_relaxed) == lastTurn && channel_.canRead() && waitReadable(0);
}

/** Less where it is to stop. */
void Guard::sleep(Clock::duration time) {
  if (time <= Clock::duration::zero()) return;
  pollfd stop{.fd = stopEvent_.get(), .events = POLLIN, .revents = 0};
  const timespec timeout{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(time).count()};
  ::ppoll(&stop, 1, &timeout, nullptr);
}

/** For as long as JavaScript takes no turn. */
void Guard::readInstead(Clock::time_point lastTurn) {
  do {
    const auto before = channel_.messagesRead();
    const bool wasInitialised = channel_.isInitialised();
    const auto end = channel_.read(readAtOnce);
    messagesRead_.fetch_add(channel_.messagesRead() - before, std::memory_order_relaxed);
    if ((channel_.hasMessages() || channel_.isInitialised() != wasInitialised) && !isStopped()) wake_();
    if (end == ReadEnd::starved || end == ReadEnd::busy || end == ReadEnd::ended) return;
  } while (!isStopped() && lastTurn_.load(std::memory_order_relaxed) == lastTurn && waitReadable(nextWithinMs));
}

}  // namespace iserfs::fuse
