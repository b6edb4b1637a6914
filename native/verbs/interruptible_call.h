/**
 * A system call that may block for minutes, on a thread of its own, and can be cut short. Linux's software iWARP (siw) makes
 * its TCP connection inside `rdma_connect` and waits for it there; a silent address would hold up every connection otherwise.
 */
#pragma once

#include <atomic>
#include <functional>
#include <thread>

namespace iserfs::rdma::verbs {

class InterruptibleCall {
 public:
  /** Starts `body` on its thread. It returns soon after its system call fails with EINTR. Throws std::system_error. */
  explicit InterruptibleCall(std::function<void()> body);
  InterruptibleCall(const InterruptibleCall&) = delete;
  InterruptibleCall& operator=(const InterruptibleCall&) = delete;
  /** Interrupts the call if it still runs, and waits for its end. Any other thread. */
  ~InterruptibleCall();

 private:
  std::atomic<bool> hasEnded_ = false;
  std::thread thread_;
};

}  // namespace iserfs::rdma::verbs
