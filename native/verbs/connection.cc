/** How a connection comes about, and what is heard of it: see connection.h. All of it runs on the loop's thread. */
#include "verbs/connection.h"

#if ISERFS_HAVE_VERBS

#include <algorithm>
#include <cerrno>
#include <stdexcept>

namespace iserfs::rdma::verbs {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t longestPrivateData = 196;
/** For the peer of a connection that we accepted to say that it is ready. */
constexpr auto acceptTimeout = 15s;
/** For another event to tell why work requests were flushed. */
constexpr auto reasonTimeout = 250ms;
/** An iSER control PDU with little data: sent with the request, without the device fetching it. */
constexpr std::uint32_t wantedInline = 128;
constexpr std::uint8_t unlimitedRetries = 7;

std::uint8_t readDepth(std::uint16_t wanted, int deviceLimit) {
  // RDMA_MAX_RESP_RES and RDMA_MAX_INIT_DEPTH (255) are not depths but mean the device's maximum.
  return static_cast<std::uint8_t>(std::min({static_cast<int>(wanted), deviceLimit, 254}));
}

void require(std::uint32_t wanted, int limit, const Device& device, const char* what) {
  if (static_cast<int>(wanted) <= limit) return;
  throw ProviderError({FailureCode::resources, device.name() + " allows " + std::to_string(limit) + " " + what + " for a connection, " +
                                                   std::to_string(wanted) + " are needed"});
}

}  // namespace

Connection::Connection(std::shared_ptr<Engine> engine, QueuePairOptions options, std::shared_ptr<QueuePairEvents> events)
    : engine_(std::move(engine)),
      library_(engine_->library()),
      options_(std::move(options)),
      events_(std::move(events)),
      sends_(options_.sendDepth),
      receives_(options_.receiveDepth) {
  const auto& instead = options_.privateDataWithoutInvalidation;
  if (std::max(options_.privateData.size(), instead ? instead->size() : 0) > longestPrivateData) throw std::length_error("more than 196 bytes of private data");
  if (options_.receives.size() > options_.receiveDepth) throw std::length_error("more receives than the queue pair is made for");
  for (const auto& receive : options_.receives) requireWithinArena(receive.segment);
}

// ---- beginning ----

void Connection::connect(const sockaddr_storage& to, std::chrono::milliseconds timeout) {
  const auto self = shared_from_this();
  engine_->keep(self);
  stage_ = "resolving the address";
  timer_ = engine_->loop().startTimer(timeout, [this, timeout] {
    timer_.reset();
    finish({FailureCode::timedOut, "no connection within " + std::to_string(timeout.count()) + " ms (" + stage_ + ")"});
  });
  try {
    id_ = engine_->createId(*this);
  } catch (const ProviderError& error) {
    return finish(error.failure());
  }
  if (!engine_->hasRoute(to)) return finish(resolutionFailure(ENODEV));
  auto address = to;
  const auto limit = static_cast<int>(std::min<std::int64_t>(timeout.count(), INT32_MAX));
  if (library_.resolveAddr(id_.get(), nullptr, reinterpret_cast<sockaddr*>(&address), limit) != 0) finish(resolutionFailure(errno));
}

void Connection::addressResolved() {
  stage_ = "resolving the route";
  constexpr int routeTimeoutMs = 10'000;
  if (library_.resolveRoute(id_.get(), routeTimeoutMs) != 0) finish(resolutionFailure(errno));
}

void Connection::routeResolved() {
  stage_ = "waiting for the peer's answer";
  try {
    makeQueuePair();
    const auto& limits = device_->attributes();
    ird_ = readDepth(options_.ird, limits.max_qp_rd_atom);
    ord_ = readDepth(options_.ord, limits.max_qp_init_rd_atom);
    isConnectCalled_ = true;
    if (!device_->isIwarp()) {
      auto parameters = connectionParameters(ird_, ord_);
      if (library_.connect(id_.get(), &parameters) != 0) finish(connectFailure(errno));
      return;
    }
    // May block, on siw: see interruptible_call.h. This connection's id is not touched meanwhile but by its end, which ends the call first.
    connecting_ = std::make_unique<InterruptibleCall>([this, weak = weak_from_this(), parameters = connectionParameters(ird_, ord_)]() mutable {
      const int error = library_.connect(id_.get(), &parameters) == 0 ? 0 : errno;
      engine_->loop().post([weak, error] {
        if (const auto connection = weak.lock()) connection->connectReturned(error);
      });
    });
  } catch (const ProviderError& error) {
    finish(error.failure());
  } catch (const std::system_error& error) {
    finish({FailureCode::resources, error.what()});
  }
}

void Connection::connectReturned(int error) {
  connecting_.reset();
  if (error != 0) finish(connectFailure(error));
}

void Connection::accept(Incoming incoming) {
  const auto self = shared_from_this();
  engine_->keep(self);
  isPassive_ = true;
  id_ = std::move(incoming.id);
  id_->context = static_cast<CmHandler*>(this);
  startTimer(acceptTimeout, {FailureCode::timedOut, "the peer did not complete the connection"});
  try {
    makeQueuePair();
    const auto& limits = device_->attributes();
    ird_ = std::min(readDepth(options_.ird, limits.max_qp_rd_atom), incoming.responderResources);
    ord_ = std::min(readDepth(options_.ord, limits.max_qp_init_rd_atom), incoming.initiatorDepth);
    auto parameters = connectionParameters(ird_, ord_);
    peerData_ = std::move(incoming.privateData);
    if (library_.accept(id_.get(), &parameters) != 0) finish(connectFailure(errno));
  } catch (const ProviderError& error) {
    finish(error.failure());
  } catch (const std::system_error& error) {
    finish({FailureCode::resources, error.what()});
  }
}

void Connection::makeQueuePair() {
  device_ = engine_->device(id_->verbs);
  const auto& limits = device_->attributes();
  const std::uint32_t bindDepth = device_->hasWindows() ? Advertisements::bindDepth(options_.advertisementDepth) : 0;
  const std::uint32_t sendDepth = std::max(options_.sendDepth + bindDepth, 1U);
  const std::uint32_t receiveDepth = std::max(options_.receiveDepth, 1U);
  require(sendDepth, limits.max_qp_wr, *device_, "requests to send");
  require(receiveDepth, limits.max_qp_wr, *device_, "requests to receive");
  require(sendDepth + receiveDepth, limits.max_cqe, *device_, "completions");

  auto domain = device_->protectionDomain();
  domain->sweep();
  ibv_cq* queue = library_.createCq(device_->context(), static_cast<int>(sendDepth + receiveDepth), static_cast<CompletionSource*>(this),
                                    device_->completionChannel(), 0);
  if (queue == nullptr) throw deviceError("completion queue", errno);
  completionQueue_ = {queue, {&library_}};

  ibv_qp_init_attr wanted{};
  wanted.qp_context = static_cast<QueuePairOwner*>(this);
  wanted.send_cq = wanted.recv_cq = queue;
  wanted.qp_type = IBV_QPT_RC;
  wanted.cap.max_send_wr = sendDepth;
  wanted.cap.max_recv_wr = receiveDepth;
  wanted.cap.max_send_sge = 2;
  wanted.cap.max_recv_sge = 1;
  wanted.cap.max_inline_data = wantedInline;
  auto attributes = wanted;
  if (library_.createQp(id_.get(), domain->get(), &attributes) != 0) {
    attributes = wanted;
    attributes.cap.max_inline_data = 0;
    if (library_.createQp(id_.get(), domain->get(), &attributes) != 0) throw deviceError("queue pair", errno);
  }
  const std::lock_guard lock(mutex_);
  queuePair_ = {id_->qp, {&library_}};
  domain_ = std::move(domain);
  inlineLimit_ = attributes.cap.max_inline_data;
  advertisements_.emplace(*domain_, options_.advertisementDepth);
  if (::ibv_req_notify_cq(queue, 0) != 0) throw deviceError("completion events", errno);
  for (auto& receive : options_.receives) postToReceiveQueue(receive.workRequestId, std::move(receive.segment));
  options_.receives.clear();
}

rdma_conn_param Connection::connectionParameters(std::uint8_t ird, std::uint8_t ord) const {
  const auto& instead = options_.privateDataWithoutInvalidation;
  const auto& data = instead && !device_->canPeerInvalidate() ? *instead : options_.privateData;
  rdma_conn_param parameters{};
  parameters.private_data = data.data();
  parameters.private_data_len = static_cast<std::uint8_t>(data.size());
  parameters.responder_resources = ird;
  parameters.initiator_depth = ord;
  parameters.flow_control = 1;
  parameters.retry_count = unlimitedRetries;
  parameters.rnr_retry_count = unlimitedRetries;
  return parameters;
}

// ---- events ----

void Connection::cmEvent(rdma_cm_id* /*id*/, const CmEvent& event) {
  const auto self = shared_from_this();
  if (events_ == nullptr) return;
  switch (event.type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
      return addressResolved();
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
      return routeResolved();
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
      return finish(resolutionFailure(event.status));
    case RDMA_CM_EVENT_REJECTED:
      return finish(rejectionFailure(event.status, device_ != nullptr && device_->isIwarp()));
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_CONNECT_ERROR:
      return finish(connectionEventFailure(event.status));
    case RDMA_CM_EVENT_ESTABLISHED:
      if (isPassive_) return established(ird_, ord_, std::move(peerData_));
      return establishedByPeer(event);
    case RDMA_CM_EVENT_DISCONNECTED:
      return disconnected(event.status);
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      return finish({FailureCode::reset, "the RDMA device was removed"});
    default:
      return;
  }
}

void Connection::establishedByPeer(const CmEvent& event) {
  auto ird = event.responderResources;
  auto ord = event.initiatorDepth;
  if (device_->quirks().areReadDepthsSwapped) std::swap(ird, ord);
  established(std::min(ird_, ird), std::min(ord_, ord), event.privateData);
}

void Connection::established(std::uint8_t ird, std::uint8_t ord, std::vector<std::byte> privateData) {
  if (isConnected_) return;
  isConnected_ = true;
  stopTimer();
  ConnectionFacts facts;
  facts.device = device_->name();
  facts.fabric = device_->fabric();
  facts.localAddress = formatAddress(id_->route.addr.src_addr);
  facts.remoteAddress = formatAddress(id_->route.addr.dst_addr);
  facts.ird = ird;
  facts.ord = ord;
  facts.protection = device_->hasWindows() ? Protection::window : Protection::region;
  facts.canPeerInvalidate = device_->canPeerInvalidate();
  facts.privateData = std::move(privateData);
  {
    const std::lock_guard lock(mutex_);
    phase_ = Phase::established;
    hasReads_ = ord > 0;
  }
  events_->established(facts);
  engine_->loop().heat(self());
}

void Connection::asyncEvent(ibv_event_type type) noexcept {
  if (type == IBV_EVENT_COMM_EST) {
    // The peer sends, so it is connected, although its last message of the handshake is not here (yet).
    engine_->loop().post([weak = weak_from_this()] {
      const auto connection = weak.lock();
      if (connection != nullptr && connection->id_ != nullptr && !connection->isConnected_) connection->library_.notify(connection->id_.get(), IBV_EVENT_COMM_EST);
    });
    return;
  }
  // Fatal errors are also reported (by siw) where a peer closes while something is sent.
  const Failure failure = type == IBV_EVENT_QP_FATAL ? Failure{FailureCode::reset, "the connection broke"} : violation();
  noteReason(failure);
  engine_->loop().post([weak = weak_from_this(), failure] {
    if (const auto connection = weak.lock()) connection->awaitReason(failure);
  });
}

void Connection::disconnected(int status) {
  if (!isConnected_) return finish({FailureCode::reset, "the peer gave up before the connection was established"});
  hasPeerClosed_ = true;
  if (status != 0) return finish({FailureCode::reset, "connection reset"});
  bool wasBroken = false;
  if (!device_->isIwarp()) {
    // A peer that closes in order leaves the queue pair as it is. Where it asked what it may not, the device broke it.
    const std::lock_guard lock(mutex_);
    wasBroken = phase_ != Phase::disconnecting && isQueuePairBroken();
  }
  finish(wasBroken ? violation() : Failure{});
}

Failure Connection::unknownReason() const {
  if (device_->isIwarp()) return {FailureCode::reset, "the connection broke"};
  // On InfiniBand and RoCE whatever breaks on this side's behalf says so in its completion.
  return violation();
}

void Connection::noteReason(Failure failure) {
  const std::lock_guard lock(mutex_);
  if (!reason_) reason_ = std::move(failure);
}

Failure Connection::reasonOr(Failure failure) {
  const std::lock_guard lock(mutex_);
  return reason_ ? *std::move(reason_) : std::move(failure);
}

void Connection::awaitReason(Failure otherwise) {
  if (!isConnected_ || isAwaitingReason_ || id_ == nullptr) return;
  isAwaitingReason_ = true;
  startTimer(reasonTimeout, std::move(otherwise));
}

void Connection::startTimer(std::chrono::milliseconds delay, Failure failure) {
  stopTimer();
  timer_ = engine_->loop().startTimer(delay, [this, failure = std::move(failure)] {
    timer_.reset();
    finish(failure);
  });
}

void Connection::stopTimer() {
  if (timer_) engine_->loop().cancelTimer(*timer_);
  timer_.reset();
}

}  // namespace iserfs::rdma::verbs

#endif
