/** See listener.h. */
#include "verbs/listener.h"

#if ISERFS_HAVE_VERBS

#include <cerrno>

#include "verbs/queue_pair.h"

namespace iserfs::rdma::verbs {

namespace {

constexpr int backlog = 128;

ProviderError ended() { return ProviderError({FailureCode::unsupported, "the provider has ended"}); }

/** A request that waits for its answer. Loop thread, but for what never changes. */
class PendingRequest final : public CmHandler, public std::enable_shared_from_this<PendingRequest> {
 public:
  PendingRequest(Engine& engine, rdma_cm_id* id, const CmEvent& event) : engine_(engine), remoteAddress(formatAddress(id->route.addr.dst_addr)), privateData(event.privateData) {
    incoming_.id = engine.adoptId(id, *this);
    incoming_.privateData = event.privateData;
    incoming_.responderResources = event.responderResources;
    incoming_.initiatorDepth = event.initiatorDepth;
  }

  /** The peer has gone away again. */
  void cmEvent(rdma_cm_id* /*id*/, const CmEvent& event) override {
    switch (event.type) {
      case RDMA_CM_EVENT_DISCONNECTED:
      case RDMA_CM_EVENT_CONNECT_ERROR:
      case RDMA_CM_EVENT_UNREACHABLE:
      case RDMA_CM_EVENT_REJECTED:
      case RDMA_CM_EVENT_DEVICE_REMOVAL:
        return drop();
      default:
        return;
    }
  }
  void shutDown() override { reject(); }

  bool isThere() const noexcept { return incoming_.id != nullptr; }
  Incoming take() {
    engine_.forget(shared_from_this());
    return std::move(incoming_);
  }
  void reject() {
    if (incoming_.id != nullptr) engine_.library().reject(incoming_.id.get(), nullptr, 0);
    drop();
  }

 private:
  void drop() {
    const auto self = shared_from_this();
    incoming_.id.reset();
    engine_.forget(self);
  }

  Engine& engine_;
  Incoming incoming_;

 public:
  const std::string remoteAddress;
  const std::vector<std::byte> privateData;
};

class VerbsConnectionRequest final : public ConnectionRequest {
 public:
  VerbsConnectionRequest(std::shared_ptr<Engine> engine, std::shared_ptr<PendingRequest> pending) : engine_(std::move(engine)), pending_(std::move(pending)) {}
  VerbsConnectionRequest(const VerbsConnectionRequest&) = delete;
  VerbsConnectionRequest& operator=(const VerbsConnectionRequest&) = delete;
  ~VerbsConnectionRequest() override { reject(); }

  std::string remoteAddress() const override { return pending_->remoteAddress; }
  std::span<const std::byte> privateData() const override { return pending_->privateData; }

  std::shared_ptr<QueuePair> accept(const QueuePairOptions& options, std::shared_ptr<QueuePairEvents> events) override {
    const auto connection = std::make_shared<Connection>(engine_, options, std::move(events));
    isAnswered_ = true;
    const bool isRunning = engine_->loop().post([connection, pending = pending_] {
      if (pending->isThere()) return connection->accept(pending->take());
      connection->fail({FailureCode::reset, "the peer gave up before it was accepted"});
    });
    if (!isRunning) throw ended();
    return std::make_shared<VerbsQueuePair>(connection);
  }

  void reject() override {
    if (isAnswered_) return;
    isAnswered_ = true;
    engine_->loop().post([pending = pending_] { pending->reject(); });
  }

 private:
  std::shared_ptr<Engine> engine_;
  std::shared_ptr<PendingRequest> pending_;
  bool isAnswered_ = false;
};

/** The listening identifier. Loop thread. */
class ListeningId final : public CmHandler, public std::enable_shared_from_this<ListeningId> {
 public:
  ListeningId(Engine& engine, std::shared_ptr<ListenerEvents> events) : engine_(engine), events_(std::move(events)) {}

  /** Throws ProviderError. */
  void listen(sockaddr_storage at) {
    const auto& library = engine_.library();
    id_ = engine_.createId(*this);
    if (library.bindAddr(id_.get(), reinterpret_cast<sockaddr*>(&at)) != 0 || library.listen(id_.get(), backlog) != 0) {
      const int error = errno;
      id_.reset();
      throw ProviderError(listenFailure(error));
    }
    engine_.keep(shared_from_this());
  }

  std::string localAddress() const { return formatAddress(id_->route.addr.src_addr); }

  void cmEvent(rdma_cm_id* id, const CmEvent& event) override {
    if (event.type == RDMA_CM_EVENT_DEVICE_REMOVAL) return shutDown();
    if (event.type != RDMA_CM_EVENT_CONNECT_REQUEST) return;
    auto pending = std::make_shared<PendingRequest>(engine_, id, event);
    engine_.keep(pending);
    events_->requested(std::make_unique<VerbsConnectionRequest>(engine_.shared_from_this(), std::move(pending)));
  }

  void shutDown() override {
    const auto self = shared_from_this();
    id_.reset();
    engine_.forget(self);
  }

 private:
  Engine& engine_;
  std::shared_ptr<ListenerEvents> events_;
  CmId id_;
};

class VerbsListener final : public Listener {
 public:
  VerbsListener(std::shared_ptr<Engine> engine, std::shared_ptr<ListeningId> id, std::string localAddress)
      : engine_(std::move(engine)), id_(std::move(id)), localAddress_(std::move(localAddress)) {}
  VerbsListener(const VerbsListener&) = delete;
  VerbsListener& operator=(const VerbsListener&) = delete;
  ~VerbsListener() override {
    engine_->loop().run([this] { id_->shutDown(); });
  }

  std::string localAddress() const override { return localAddress_; }

 private:
  std::shared_ptr<Engine> engine_;
  std::shared_ptr<ListeningId> id_;
  std::string localAddress_;
};

}  // namespace

std::unique_ptr<Listener> makeListener(const std::shared_ptr<Engine>& engine, const Address& at, std::shared_ptr<ListenerEvents> events) {
  const auto address = parseAddress(at);
  const auto id = std::make_shared<ListeningId>(*engine, std::move(events));
  std::string localAddress;
  const bool isRunning = engine->loop().run([&] {
    id->listen(address);
    localAddress = id->localAddress();
  });
  if (!isRunning) throw ended();
  return std::make_unique<VerbsListener>(engine, id, std::move(localAddress));
}

}  // namespace iserfs::rdma::verbs

#endif
