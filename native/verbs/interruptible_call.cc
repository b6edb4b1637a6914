/** See interruptible_call.h: a signal that nobody uses, with a handler that does nothing, makes a blocked call return EINTR. */
#include "verbs/interruptible_call.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <chrono>
#include <system_error>

namespace iserfs::rdma::verbs {

namespace {

using namespace std::chrono_literals;

void ignoreSignal(int /*signal*/) noexcept {}

/** The highest real-time signal that is at its default: taken once, without SA_RESTART. */
int interruptingSignal() {
  static const int taken = [] {
    for (int candidate = SIGRTMAX; candidate >= SIGRTMIN; candidate--) {
      struct sigaction current {};
      if (::sigaction(candidate, nullptr, &current) != 0 || (current.sa_flags & SA_SIGINFO) != 0 || current.sa_handler != SIG_DFL) continue;
      struct sigaction ours {};
      ours.sa_handler = ignoreSignal;
      if (::sigaction(candidate, &ours, nullptr) == 0) return candidate;
    }
    throw std::system_error(EBUSY, std::generic_category(), "every real-time signal is in use");
  }();
  return taken;
}

}  // namespace

InterruptibleCall::InterruptibleCall(std::function<void()> body) {
  static_cast<void>(interruptingSignal());
  thread_ = std::thread([this, call = std::move(body)] {
    sigset_t interrupting;
    ::sigemptyset(&interrupting);
    ::sigaddset(&interrupting, interruptingSignal());
    ::pthread_sigmask(SIG_UNBLOCK, &interrupting, nullptr);
    call();
    hasEnded_ = true;
  });
}

InterruptibleCall::~InterruptibleCall() {
  // Again and again: the first signal may come before the system call begins.
  while (!hasEnded_) {
    ::pthread_kill(thread_.native_handle(), interruptingSignal());
    std::this_thread::sleep_for(1ms);
  }
  thread_.join();
}

}  // namespace iserfs::rdma::verbs
