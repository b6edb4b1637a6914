#include "listener.h"

#include <cerrno>
#include <stdexcept>
#include <utility>

#include "linger.h"

namespace iserfs::rdma::iwarp {

namespace {

using std::chrono::milliseconds;

/** Per listener: connections without a request, and requests without an answer. */
constexpr std::size_t mostUndecided = 256;
/** Connections that are taken before others get their turn. */
constexpr int mostAtOnce = 64;
constexpr milliseconds requestPatience{5000};
/** Before accepting again when there are no more descriptors. */
constexpr milliseconds resourcePause{100};

/** A connection that is not decided on. Loop's thread, unless said otherwise. */
class Undecided final : public SocketLoop::Handler, public Endpoint, public std::enable_shared_from_this<Undecided> {
 public:
  using Offer = std::function<void(std::shared_ptr<Undecided>)>;

  /** `count` is of those that there are. `offer` gets it when the request is there. */
  Undecided(std::shared_ptr<SocketLoop> loop, std::shared_ptr<OpenEndpoints> endpoints, Descriptor socket,
            std::shared_ptr<std::size_t> count, Offer offer)
      : loop_(std::move(loop)),
        endpoints_(std::move(endpoints)),
        remoteAddress_(peerAddress(socket).text()),
        socket_(std::move(socket)),
        count_(std::move(count)),
        offer_(std::move(offer)) {
    ++*count_;
  }

  void start() {
    // It may have been abandoned before this turn.
    if (!socket_) return;
    endpoints_->add(shared_from_this());
    if (!loop_->add(socket_, shared_from_this())) return drop();
    timer_ = loop_->startTimer(requestPatience, [self = shared_from_this()] { self->drop(); });
  }

  void socketReady(SocketLoop::Readiness readiness) noexcept override {
    if (!readiness.readable || !socket_) return;
    if (offer_) return readRequest();
    // It must not send before the reply. If it has gone, there is no need to keep its socket.
    std::byte next{};
    if (::recv(socket_.number(), &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0) drop();
  }

  void abandon() noexcept override { drop(); }

  /** Its socket, for a queue pair. Without one if the peer has gone. */
  IncomingConnection release() {
    if (!socket_) return {};
    loop_->remove(socket_);
    IncomingConnection incoming{std::move(socket_), std::move(request_)};
    settled();
    return incoming;
  }

  void reject() {
    if (!socket_) return;
    loop_->remove(socket_);
    std::vector<std::byte> frame = buildMpaReject(request_.header);
    const iovec part{frame.data(), frame.size()};
    if (sendGathered(socket_, {&part, 1}).length == frame.size()) closeAfterPeer(*loop_, std::move(socket_));
    socket_ = Descriptor();
    settled();
  }

  /** Until it is released. */
  const MpaFrame& request() const noexcept { return request_; }
  /** Any thread. */
  const std::string& remoteAddress() const noexcept { return remoteAddress_; }
  const std::shared_ptr<SocketLoop>& loop() const noexcept { return loop_; }
  const std::shared_ptr<OpenEndpoints>& endpoints() const noexcept { return endpoints_; }

 private:
  /** Takes the request and not a byte more. */
  void readRequest() {
    std::size_t wanted = mpaHeaderLength;
    for (;;) {
      if (input_.size() >= mpaHeaderLength) {
        const auto parsed = parseMpaHeader(std::span(input_).first<mpaHeaderLength>(), MpaKind::request);
        if (std::holds_alternative<MpaFault>(parsed)) return drop();
        request_.header = std::get<MpaHeader>(parsed);
        wanted = mpaHeaderLength + request_.header.privateDataLength;
        if (input_.size() == wanted) return takeRequest();
      }
      const std::size_t before = input_.size();
      input_.resize(wanted);
      const iovec part{&input_[before], wanted - before};
      const Transfer transfer = receiveScattered(socket_, {&part, 1});
      input_.resize(before + transfer.length);
      if (transfer.wouldBlock) return;
      if (transfer.error != 0 || transfer.isEnd) return drop();
    }
  }

  void takeRequest() {
    auto frame = parseMpaFrame(request_.header, std::span(input_).subspan(mpaHeaderLength));
    if (std::holds_alternative<MpaFault>(frame)) return reject();
    request_ = std::get<MpaFrame>(std::move(frame));
    if (objectionToMpaRequest(request_)) return reject();
    loop_->stopTimer(timer_);
    sendAtOnce(socket_);
    const Offer offer = std::exchange(offer_, nullptr);
    offer(shared_from_this());
  }

  void drop() noexcept {
    if (!socket_) return;
    loop_->remove(socket_);
    resetOnClose(socket_);
    socket_ = Descriptor();
    settled();
  }

  void settled() noexcept {
    loop_->stopTimer(timer_);
    endpoints_->remove(this);
    offer_ = nullptr;
    --*count_;
  }

  const std::shared_ptr<SocketLoop> loop_;
  const std::shared_ptr<OpenEndpoints> endpoints_;
  const std::string remoteAddress_;
  Descriptor socket_;
  const std::shared_ptr<std::size_t> count_;
  /** Until the request is there. */
  Offer offer_;
  std::vector<std::byte> input_;
  MpaFrame request_;
  SocketLoop::TimerId timer_ = 0;
};

class IwarpConnectionRequest final : public ConnectionRequest {
 public:
  explicit IwarpConnectionRequest(std::shared_ptr<Undecided> connection)
      : connection_(std::move(connection)), privateData_(connection_->request().privateData) {}
  ~IwarpConnectionRequest() override { reject(); }

  std::string remoteAddress() const override { return remoteAddress_; }
  std::span<const std::byte> privateData() const override { return privateData_; }

  std::shared_ptr<QueuePair> accept(const QueuePairOptions& options, std::shared_ptr<QueuePairEvents> events) override {
    if (!connection_) throw std::logic_error("the connection request was answered already");
    const auto queuePair =
        std::make_shared<IwarpQueuePair>(connection_->loop(), connection_->endpoints(), options, std::move(events));
    connection_->endpoints()->add(queuePair);
    const auto loop = connection_->loop();
    loop->post([queuePair, connection = std::move(connection_)] { queuePair->accept(connection->release()); });
    return queuePair->handle();
  }

  void reject() override {
    if (!connection_) return;
    const auto loop = connection_->loop();
    loop->post([connection = std::move(connection_)] { connection->reject(); });
  }

 private:
  std::shared_ptr<Undecided> connection_;
  const std::string remoteAddress_ = connection_->remoteAddress();
  const std::vector<std::byte> privateData_;
};

/** Loop's thread. */
class Acceptor final : public SocketLoop::Handler, public Endpoint, public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(std::shared_ptr<SocketLoop> loop, std::shared_ptr<OpenEndpoints> endpoints, Descriptor socket,
           std::shared_ptr<ListenerEvents> events)
      : loop_(std::move(loop)), endpoints_(std::move(endpoints)), socket_(std::move(socket)), events_(std::move(events)) {}

  void start() {
    endpoints_->add(shared_from_this());
    loop_->add(socket_, shared_from_this());
  }

  void socketReady(SocketLoop::Readiness) noexcept override {
    for (int taken = 0; socket_; taken++) {
      if (taken == mostAtOnce) return acceptLater();
      Descriptor socket(::accept4(socket_.number(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (socket) {
        take(std::move(socket));
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return;
      } else if (errno != ECONNABORTED && errno != EINTR) {
        // Descriptors or memory, most likely: it goes on when there are some again.
        loop_->stopTimer(timer_);
        timer_ = loop_->startTimer(resourcePause, [self = shared_from_this()] { self->socketReady({.readable = true}); });
        return;
      }
    }
  }

  void abandon() noexcept override {
    if (!socket_) return;
    loop_->remove(socket_);
    loop_->stopTimer(timer_);
    socket_ = Descriptor();
    endpoints_->remove(this);
    events_.reset();
  }

 private:
  /** Others have their turn first. */
  void acceptLater() {
    if (std::exchange(isAcceptDue_, true)) return;
    loop_->post([self = shared_from_this()] {
      self->isAcceptDue_ = false;
      self->socketReady({.readable = true});
    });
  }

  void take(Descriptor socket) {
    if (*undecided_ >= mostUndecided) return resetOnClose(socket);
    const auto offer = [acceptor = weak_from_this()](std::shared_ptr<Undecided> connection) {
      const auto self = acceptor.lock();
      // Nobody listens any more: the request is destroyed, and by that rejected.
      auto request = std::make_unique<IwarpConnectionRequest>(std::move(connection));
      if (self && self->events_) self->events_->requested(std::move(request));
    };
    std::make_shared<Undecided>(loop_, endpoints_, std::move(socket), undecided_, offer)->start();
  }

  const std::shared_ptr<SocketLoop> loop_;
  const std::shared_ptr<OpenEndpoints> endpoints_;
  Descriptor socket_;
  std::shared_ptr<ListenerEvents> events_;
  SocketLoop::TimerId timer_ = 0;
  bool isAcceptDue_ = false;
  const std::shared_ptr<std::size_t> undecided_ = std::make_shared<std::size_t>(0);
};

class IwarpListener final : public Listener {
 public:
  IwarpListener(std::shared_ptr<SocketLoop> loop, std::shared_ptr<Acceptor> acceptor, std::string address)
      : loop_(std::move(loop)), acceptor_(std::move(acceptor)), localAddress_(std::move(address)) {}
  /** Afterwards nobody is told of a request. */
  ~IwarpListener() override {
    loop_->runAndWait([this] { acceptor_->abandon(); });
  }

  std::string localAddress() const override { return localAddress_; }

 private:
  const std::shared_ptr<SocketLoop> loop_;
  const std::shared_ptr<Acceptor> acceptor_;
  const std::string localAddress_;
};

}  // namespace

std::unique_ptr<Listener> listen(const std::shared_ptr<SocketLoop>& loop, const std::shared_ptr<OpenEndpoints>& endpoints,
                                 const Address& at, std::shared_ptr<ListenerEvents> events) {
  Descriptor socket = listenAt(resolve(at));
  std::string address = localAddress(socket).text();
  auto acceptor = std::make_shared<Acceptor>(loop, endpoints, std::move(socket), std::move(events));
  auto listener = std::make_unique<IwarpListener>(loop, acceptor, std::move(address));
  loop->post([acceptor] { acceptor->start(); });
  return listener;
}

}  // namespace iserfs::rdma::iwarp
