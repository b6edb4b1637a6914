#include "linger.h"

#include <array>

namespace iserfs::rdma::iwarp {

namespace {

constexpr std::chrono::seconds patience{1};
/** What a peer may still have had under way; who sends more is not listening. */
constexpr std::size_t mostIgnored = 16 * 1024 * 1024;
/** What is read before others get their turn. */
constexpr std::size_t mostAtOnce = 1024 * 1024;

class Lingerer final : public SocketLoop::Handler, public std::enable_shared_from_this<Lingerer> {
 public:
  Lingerer(SocketLoop& loop, Descriptor socket) : loop_(loop), socket_(std::move(socket)) {}

  void start() {
    ::shutdown(socket_.number(), SHUT_WR);
    if (!loop_.add(socket_, shared_from_this())) return;
    timer_ = loop_.startTimer(patience, [self = shared_from_this()] { self->end(); });
  }

  void socketReady(SocketLoop::Readiness readiness) noexcept override {
    std::array<std::byte, 16 * 1024> ignored;
    const iovec part{ignored.data(), ignored.size()};
    if (isReadDue_) return;
    for (std::size_t most = ignored_ + mostAtOnce; readiness.readable && socket_;) {
      if (ignored_ >= most) return readLater();
      const Transfer transfer = receiveScattered(socket_, {&part, 1});
      if (transfer.wouldBlock) return;
      ignored_ += transfer.length;
      if (transfer.isEnd || transfer.error != 0 || ignored_ > mostIgnored) end();
    }
  }

 private:
  /** Others have their turn first. */
  void readLater() {
    isReadDue_ = true;
    loop_.post([self = shared_from_this()] {
      self->isReadDue_ = false;
      self->socketReady({.readable = true});
    });
  }

  void end() noexcept {
    if (!socket_) return;
    loop_.stopTimer(timer_);
    loop_.remove(socket_);
    socket_ = Descriptor();
  }

  SocketLoop& loop_;
  Descriptor socket_;
  SocketLoop::TimerId timer_ = 0;
  std::size_t ignored_ = 0;
  bool isReadDue_ = false;
};

}  // namespace

void closeAfterPeer(SocketLoop& loop, Descriptor socket) { std::make_shared<Lingerer>(loop, std::move(socket))->start(); }

}  // namespace iserfs::rdma::iwarp
