#include "turning_thread.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <future>

namespace iserfs::test {

using namespace iserfs::rdma;

TurningThread::TurningThread(int descriptor, std::function<void()> turn) : end_(::eventfd(0, EFD_CLOEXEC)) {
  std::promise<void> begun;
  auto hasBegun = begun.get_future();
  thread_ = std::thread([this, descriptor, turn = std::move(turn), begun = std::move(begun)]() mutable {
    turn();
    begun.set_value();
    std::array<pollfd, 2> watched{{{.fd = descriptor, .events = POLLIN, .revents = 0}, {.fd = end_.number(), .events = POLLIN, .revents = 0}}};
    while (::poll(watched.data(), watched.size(), -1) < 0 || (watched[1].revents & POLLIN) == 0) turn();
  });
  hasBegun.wait();
}

TurningThread::~TurningThread() {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(end_.number(), &one, sizeof one));
  thread_.join();
}

LoopThread::~LoopThread() {
  thread_.reset();
  loop_->end();
}

namespace {

class ThreadedProvider final : public Provider {
 public:
  ~ThreadedProvider() override { thread_.reset(); }

  std::shared_ptr<QueuePair> connect(const Address& to, const QueuePairOptions& options, std::uint32_t timeoutMs,
                                     std::shared_ptr<QueuePairEvents> events) override {
    return provider_->connect(to, options, timeoutMs, std::move(events));
  }
  std::unique_ptr<Listener> listen(const Address& at, std::shared_ptr<ListenerEvents> events) override {
    return provider_->listen(at, std::move(events));
  }

 private:
  const std::shared_ptr<Provider> provider_ = makeIwarpProvider();
  std::unique_ptr<TurningThread> thread_ = std::make_unique<TurningThread>(provider_->turnDescriptor(), [this] { provider_->turn(); });
};

}  // namespace

std::shared_ptr<Provider> threadedIwarpProvider() { return std::make_shared<ThreadedProvider>(); }

}  // namespace iserfs::test
