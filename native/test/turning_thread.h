/** A thread that gives turns, as an event loop does in the program. */
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include "iwarp/socket_loop.h"
#include "provider.h"

namespace iserfs::test {

class TurningThread {
 public:
  /** `turn` is called when `descriptor` is readable, and once before this returns. */
  TurningThread(int descriptor, std::function<void()> turn);
  TurningThread(const TurningThread&) = delete;
  TurningThread& operator=(const TurningThread&) = delete;
  ~TurningThread();

 private:
  rdma::iwarp::Descriptor end_;
  std::thread thread_;
};

/** A socket loop with its thread. */
class LoopThread {
 public:
  ~LoopThread();
  const std::shared_ptr<rdma::iwarp::SocketLoop>& loop() const noexcept { return loop_; }

 private:
  const std::shared_ptr<rdma::iwarp::SocketLoop> loop_ = std::make_shared<rdma::iwarp::SocketLoop>();
  std::unique_ptr<TurningThread> thread_ = std::make_unique<TurningThread>(loop_->descriptor(), [this] { loop_->turn(); });
};

/** Software iWARP with a thread of its own. */
std::shared_ptr<rdma::Provider> threadedIwarpProvider();

}  // namespace iserfs::test
