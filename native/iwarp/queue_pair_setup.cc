/** How a queue pair's connection begins: TCP, then MPA's request and reply, in either role. Loop's thread, throughout. */
#include <cerrno>

#include "queue_pair.h"

namespace iserfs::rdma::iwarp {

namespace {

/**
 * RFC 5044 §7.1: a responder waits for the initiator's first message. An initiator whose ULP waits for ours would wait for ever, so
 * that ends: an initiator that had the reply is ready long before.
 */
constexpr std::chrono::milliseconds responderPatience{100};
constexpr std::chrono::milliseconds rtrPatience{5000};

}  // namespace

void IwarpQueuePair::connect(const Address& to, std::chrono::milliseconds timeout) {
  if (phase_ == Phase::ended) return;
  phase_ = Phase::connecting;
  try {
    const SocketAddress address = resolve(to);
    socket_ = makeSocket(address);
    if (::connect(socket_.number(), address.get(), address.length) != 0 && errno != EINPROGRESS) {
      return end(failureOfConnect(errno), Farewell::close);
    }
    if (!loop_->add(socket_, shared_from_this())) return end({FailureCode::resources, errorText(errno)}, Farewell::close);
    startTimer(timeout, &IwarpQueuePair::timedOut);
  } catch (const ProviderError& error) {
    end(error.failure(), Farewell::close);
  }
}

void IwarpQueuePair::sendRequest() {
  if (const int error = takeError(socket_); error != 0) return end(failureOfConnect(error), Farewell::close);
  // Told too early, before TCP has begun.
  if (peerAddress(socket_).storage.ss_family == AF_UNSPEC) return;
  sendAtOnce(socket_);
  std::vector<std::byte> frame =
      buildMpaRequest({.crc = options_.crc, .ird = options_.ird, .ord = options_.ord, .privateData = options_.privateData});
  const iovec part{frame.data(), frame.size()};
  const Transfer transfer = sendGathered(socket_, {&part, 1});
  if (transfer.error != 0) return end(failureOfConnect(transfer.error), Farewell::reset);
  // A connection that has carried nothing yet has room for it.
  if (transfer.length < frame.size()) return end({FailureCode::resources, "no buffer for the MPA request"}, Farewell::reset);
  phase_ = Phase::requesting;
  readReply();
}

/** Takes the reply and not a byte more: what follows is the receiver's. */
void IwarpQueuePair::readReply() {
  std::size_t wanted = mpaHeaderLength;
  MpaHeader header;
  for (;;) {
    if (mpaInput_.size() >= mpaHeaderLength) {
      const auto parsed = parseMpaHeader(std::span(mpaInput_).first<mpaHeaderLength>(), MpaKind::reply);
      if (const auto* fault = std::get_if<MpaFault>(&parsed)) return end({FailureCode::peerViolation, fault->text}, Farewell::reset);
      header = std::get<MpaHeader>(parsed);
      wanted = mpaHeaderLength + header.privateDataLength;
      if (mpaInput_.size() == wanted) break;
    }
    const std::size_t before = mpaInput_.size();
    mpaInput_.resize(wanted);
    const iovec part{&mpaInput_[before], wanted - before};
    const Transfer transfer = receiveScattered(socket_, {&part, 1});
    mpaInput_.resize(before + transfer.length);
    if (transfer.wouldBlock) return;
    if (transfer.error != 0 || transfer.isEnd) return end(failureOfConnect(transfer.isEnd ? ECONNRESET : transfer.error), Farewell::close);
  }
  const auto frame = parseMpaFrame(header, std::span(mpaInput_).subspan(mpaHeaderLength));
  if (const auto* fault = std::get_if<MpaFault>(&frame)) return end({FailureCode::peerViolation, fault->text}, Farewell::reset);
  settle(std::get<MpaFrame>(frame));
}

void IwarpQueuePair::settle(const MpaFrame& reply) {
  const auto settled = settleMpaReply({.crc = options_.crc, .ird = options_.ird, .ord = options_.ord, .privateData = {}}, reply);
  if (const auto* fault = std::get_if<MpaFault>(&settled)) {
    switch (fault->kind) {
      case MpaFault::Kind::rejected: return end({FailureCode::rejected, fault->text}, Farewell::close);
      case MpaFault::Kind::malformed: return end({FailureCode::peerViolation, fault->text}, Farewell::reset);
      case MpaFault::Kind::insufficientIrd:
        open({.crc = options_.crc || reply.header.crc}, {});
        return end({FailureCode::peerViolation, fault->text}, Farewell::terminate, buildTerminate(terminate_code::insufficientIrd, {}));
    }
  }
  open(std::get<MpaAgreement>(settled), reply.privateData);
  if (phase_ == Phase::open) tellEstablished();
  letTransmit();
  receive();
}

void IwarpQueuePair::accept(IncomingConnection incoming) {
  if (phase_ == Phase::ended) return;
  socket_ = std::move(incoming.socket);
  if (!socket_) return end({FailureCode::reset, "the peer went away before it was answered"}, Farewell::close);
  const MpaTerms terms{.crc = options_.crc, .ird = options_.ird, .ord = options_.ord, .privateData = options_.privateData};
  const MpaAgreement agreement = settleMpaRequest(incoming.request, terms);
  std::vector<std::byte> frame = buildMpaReply(incoming.request, terms);
  const iovec part{frame.data(), frame.size()};
  const Transfer transfer = sendGathered(socket_, {&part, 1});
  if (transfer.error != 0) return end(failureOfConnection(transfer.error), Farewell::close);
  if (transfer.length < frame.size()) return end({FailureCode::resources, "no buffer for the MPA reply"}, Farewell::reset);
  open(agreement, std::move(incoming.request.privateData));
  // From here on it may be told of what has come already.
  if (!loop_->add(socket_, shared_from_this())) return end({FailureCode::resources, errorText(errno)}, Farewell::reset);
  if (agreement.rtr != Rtr::none) {
    phase_ = Phase::awaitingRtr;
    return startTimer(rtrPatience, &IwarpQueuePair::timedOut);
  }
  startTimer(responderPatience, &IwarpQueuePair::timedOut);
  tellEstablished();
}

void IwarpQueuePair::open(const MpaAgreement& agreement, std::vector<std::byte> privateData) {
  facts_ = {.device = "software",
            .fabric = "iWARP",
            .localAddress = localAddress(socket_).text(),
            .remoteAddress = peerAddress(socket_).text(),
            .ird = agreement.ird,
            .ord = agreement.ord,
            .crc = agreement.crc,
            .protection = Protection::tag,
            .privateData = std::move(privateData)};
  if (timer_) loop_->stopTimer(*timer_);
  timer_.reset();
  mpaInput_ = {};
  queues_.setReadDepths(agreement.ird, agreement.ord);
  const std::lock_guard noReceiving(receiveLock_);
  const std::lock_guard noSending(transmitLock_);
  receiver_ = std::make_unique<Receiver>(queues_, agreement.crc, agreement.rtr);
  transmitter_ = std::make_unique<Transmitter>(queues_, agreement.crc, suitableFpdu(socket_));
  phase_ = Phase::open;
}

void IwarpQueuePair::tellEstablished() {
  const std::lock_guard guard(deliveryLock_);
  isDelivering_ = true;
  events_->established(facts_);
}

}  // namespace iserfs::rdma::iwarp
