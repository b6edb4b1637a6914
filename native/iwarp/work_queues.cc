#include "work_queues.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace iserfs::rdma::iwarp {

namespace {

constexpr std::uint32_t mostRequests = 1 << 16;
constexpr std::uint32_t mostAdvertisements = 1 << 18;

void checkSegment(const Segment& segment) {
  if (!segment.arena) {
    if (segment.length > 0) throw std::out_of_range("a segment without an arena");
    return;
  }
  if (segment.offset > segment.arena->length() || segment.length > segment.arena->length() - segment.offset) {
    throw std::out_of_range("a segment that is not within its arena");
  }
}

std::uint32_t checkedDepth(std::uint32_t depth, std::uint32_t most, const char* text) {
  if (depth > most) throw std::length_error(text);
  return depth;
}

std::span<std::byte> memoryOf(const Segment& segment) {
  return segment.length == 0 ? std::span<std::byte>{} : std::span(segment.data(), segment.length);
}

Opcode opcodeOf(const Message& message) {
  if (message.type == MessageType::readRequest) return Opcode::read;
  return message.type == MessageType::write ? Opcode::write : Opcode::send;
}

Violation writeViolation(TagFault fault, std::uint32_t tag, std::uint32_t length) {
  switch (fault) {
    case TagFault::access: return {"the peer wrote with STag " + hex(tag) + ", which does not allow that", terminate_code::accessViolation};
    case TagFault::bounds:
      return {"the peer wrote " + std::to_string(length) + " bytes out of the bounds of STag " + hex(tag), terminate_code::taggedOutOfBounds};
    case TagFault::wrap: return {"the peer wrote beyond the end of all addresses", terminate_code::taggedAddressWrap};
    default: return {"the peer wrote with STag " + hex(tag) + ", which is not in force", terminate_code::taggedInvalidTag};
  }
}

Violation readViolation(TagFault fault, const ReadRequest& request) {
  const std::string tag = hex(request.sourceTag);
  switch (fault) {
    case TagFault::access: return {"the peer read with STag " + tag + ", which does not allow that", terminate_code::accessViolation};
    case TagFault::bounds:
      return {"the peer read " + std::to_string(request.length) + " bytes out of the bounds of STag " + tag, terminate_code::outOfBounds};
    case TagFault::wrap: return {"the peer read beyond the end of all addresses", terminate_code::addressWrap};
    default: return {"the peer read with STag " + tag + ", which is not in force", terminate_code::invalidTag};
  }
}

}  // namespace

WorkQueues::WorkQueues(const QueuePairOptions& options, std::uint64_t seed, std::function<void()> catchUp)
    : sendDepth_(checkedDepth(options.sendDepth, mostRequests, "a send queue deeper than 65536")),
      receiveDepth_(checkedDepth(options.receiveDepth, mostRequests, "a receive queue deeper than 65536")),
      advertisementDepth_(checkedDepth(options.advertisementDepth, mostAdvertisements, "more than 262144 advertisements")),
      catchUp_(std::move(catchUp)),
      ird_(options.ird),
      ord_(options.ord),
      // A tag more than can be in force, so that one that is being taken back does not stand in the way; and the sinks of our Reads.
      tags_(advertisementDepth_ + 1 + options.ord, seed) {
  for (const ReceiveRequest& receive : options.receives) postReceive(receive.workRequestId, receive.segment);
}

// ---- the owner ----

void WorkQueues::postReceive(std::uint32_t workRequestId, Segment segment) {
  checkSegment(segment);
  const std::lock_guard guard(lock_);
  if (isOver_) return;
  if (receivesInUse_ >= receiveDepth_) throw std::length_error("the receive queue is full");
  ++receivesInUse_;
  if (isRefusing_) return complete({.workRequestId = workRequestId, .opcode = Opcode::receive, .status = Status::flushed});
  receives_.push_back({workRequestId, std::move(segment)});
}

void WorkQueues::postSend(std::uint32_t workRequestId, std::span<const Segment> segments, std::optional<std::uint32_t> invalidate) {
  if (segments.empty() || segments.size() > 2) throw std::length_error("a message has one or two segments");
  std::uint64_t length = 0;
  Message message;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    checkSegment(segments[i]);
    length += segments[i].length;
    message.segments[i] = segments[i];
  }
  if (length > UINT32_MAX) throw std::length_error("a message of 4 GiB or more");
  message.type = invalidate ? MessageType::sendInvalidate : MessageType::send;
  message.workRequestId = workRequestId;
  message.tag = invalidate.value_or(0);
  const std::lock_guard guard(lock_);
  post(std::move(message));
}

void WorkQueues::postWrite(std::uint32_t workRequestId, Segment segment, RemoteAddress to) {
  checkSegment(segment);
  Message message;
  message.type = MessageType::write;
  message.workRequestId = workRequestId;
  message.segments[0] = std::move(segment);
  message.tag = to.tag;
  message.address = to.address;
  const std::lock_guard guard(lock_);
  post(std::move(message));
}

void WorkQueues::postRead(std::uint32_t workRequestId, Segment segment, RemoteAddress from) {
  checkSegment(segment);
  Message message;
  message.type = MessageType::readRequest;
  message.workRequestId = workRequestId;
  message.request.length = segment.length;
  message.request.sourceTag = from.tag;
  message.request.sourceAddress = from.address;
  message.segments[0] = std::move(segment);
  const std::lock_guard guard(lock_);
  post(std::move(message));
}

void WorkQueues::post(Message message) {
  if (isOver_) return;
  if (sendsInUse_ >= sendDepth_) throw std::length_error("the send queue is full");
  ++sendsInUse_;
  if (isRefusing_) {
    return complete(
        {.workRequestId = message.workRequestId, .opcode = opcodeOf(message), .status = Status::flushed, .byteLength = message.length()});
  }
  posted_.push_back(std::move(message));
}

RemoteAddress WorkQueues::advertise(const Segment& segment, Access access) {
  checkSegment(segment);
  const std::lock_guard guard(lock_);
  if (isOver_) return {};
  if (advertised_ >= advertisementDepth_) throw std::length_error("no more advertisements may be in force at a time");
  const std::uint32_t tag = tags_.insert(segment, access == Access::remoteWrite ? TagRight::remoteWrite : TagRight::remoteRead);
  ++advertised_;
  return {tag, tags_.addressOf(tag)};
}

bool WorkQueues::revoke(std::uint32_t tag) {
  const std::lock_guard guard(lock_);
  StagTable::Entry* entry = tags_.find(tag);
  if (entry == nullptr || entry->right == TagRight::readSink) return true;
  entry->inForce = false;
  if (entry->isPlacing || entry->readers > 0) return false;
  tags_.erase(tag);
  --advertised_;
  return true;
}

void WorkQueues::revokeForced(std::uint32_t tag) {
  const std::lock_guard guard(lock_);
  const StagTable::Entry* entry = tags_.find(tag);
  if (entry == nullptr || entry->right == TagRight::readSink) return;
  tags_.erase(tag);
  --advertised_;
}

void WorkQueues::refusePosts() {
  const std::lock_guard guard(lock_);
  isRefusing_ = true;
}

// ---- the queue pair ----

void WorkQueues::setReadDepths(std::uint16_t ird, std::uint16_t ord) {
  const std::lock_guard guard(lock_);
  ird_ = ird;
  ord_ = ord;
}

bool WorkQueues::wasReadImpossible() {
  const std::lock_guard guard(lock_);
  return wasReadImpossible_;
}

bool WorkQueues::hasWork() {
  const std::lock_guard guard(lock_);
  return !posted_.empty() || !waitingReads_.empty() || !reads_.empty() || responsesDue_ > 0 || !transmitting_.empty();
}

void WorkQueues::flush() {
  const std::lock_guard guard(lock_);
  isOver_ = true;
  const auto flushed = [this](Opcode opcode, std::uint32_t workRequestId, std::uint32_t length) {
    complete({.workRequestId = workRequestId, .opcode = opcode, .status = Status::flushed, .byteLength = length});
  };
  for (const Completion& request : transmitting_) flushed(request.opcode, request.workRequestId, request.byteLength);
  for (const OutstandingRead& read : reads_) flushed(Opcode::read, read.workRequestId, read.segment.length);
  for (const Message& message : waitingReads_) flushed(Opcode::read, message.workRequestId, message.length());
  for (const Message& message : posted_) flushed(opcodeOf(message), message.workRequestId, message.length());
  for (const ReceiveRequest& receive : receives_) flushed(Opcode::receive, receive.workRequestId, 0);
  transmitting_.clear();
  reads_.clear();
  waitingReads_.clear();
  posted_.clear();
  receives_.clear();
  responses_.clear();
  responsesDue_ = 0;
  tags_.clear();
  advertised_ = 0;
}

void WorkQueues::failOldest(Opcode opcode) {
  const std::lock_guard guard(lock_);
  if (opcode == Opcode::receive && !receives_.empty()) {
    complete({.workRequestId = receives_.front().workRequestId, .opcode = opcode, .status = Status::failed});
    receives_.pop_front();
  } else if (opcode == Opcode::read && !reads_.empty()) {
    complete({.workRequestId = reads_.front().workRequestId, .opcode = opcode, .status = Status::failed});
    tags_.erase(reads_.front().tag);
    reads_.pop_front();
  }
}

void WorkQueues::complete(const Completion& completion) { completions_.push_back(completion); }

bool WorkQueues::needsDelivery() {
  const std::lock_guard guard(lock_);
  return !completions_.empty() && !std::exchange(isDeliveryDue_, true);
}

void WorkQueues::takeCompletions(std::vector<Completion>& batch) {
  const std::lock_guard guard(lock_);
  isDeliveryDue_ = false;
  batch.swap(completions_);
  for (const Completion& completion : batch) --(completion.opcode == Opcode::receive ? receivesInUse_ : sendsInUse_);
}

// ---- Receiver::Host ----

std::optional<std::span<std::byte>> WorkQueues::beginMessage() noexcept {
  const std::lock_guard guard(lock_);
  if (receives_.empty()) return std::nullopt;
  // It stays at the front, and keeps the memory, until the message ends.
  return memoryOf(receives_.front().segment);
}

std::optional<Violation> WorkQueues::endMessage(std::uint32_t length, std::optional<std::uint32_t> invalidated) noexcept {
  std::unique_lock guard(lock_);
  if (invalidated) {
    bool isBusy = false;
    auto violation = checkInvalidation(*invalidated, isBusy);
    if (isBusy) {
      guard.unlock();
      catchUp_();
      guard.lock();
      violation = checkInvalidation(*invalidated, isBusy);
    }
    if (violation) return violation;
    tags_.erase(*invalidated);
    --advertised_;
  }
  complete({.workRequestId = receives_.front().workRequestId,
            .opcode = Opcode::receive,
            .status = Status::success,
            .hasInvalidated = invalidated.has_value(),
            .invalidatedTag = invalidated.value_or(0),
            .byteLength = length});
  receives_.pop_front();
  return std::nullopt;
}

std::optional<Violation> WorkQueues::checkInvalidation(std::uint32_t tag, bool& isBusy) {
  const StagTable::Entry* entry = tags_.find(tag);
  if (entry == nullptr || !entry->inForce || entry->right == TagRight::readSink) {
    return Violation{"the peer invalidated STag " + hex(tag) + ", which is not in force", terminate_code::cannotInvalidate};
  }
  isBusy = entry->readers > 0;
  if (isBusy) {
    return Violation{"the peer invalidated STag " + hex(tag) + " and was still reading with it", terminate_code::cannotInvalidate};
  }
  return std::nullopt;
}

Receiver::Place WorkQueues::beginWrite(std::uint32_t tag, std::uint64_t address, std::uint32_t length) noexcept {
  const std::lock_guard guard(lock_);
  const auto found = tags_.check(tag, address, length, TagRight::remoteWrite);
  if (found.fault != TagFault::none) return {nullptr, writeViolation(found.fault, tag, length)};
  found.entry->isPlacing = true;
  return {found.entry->segment.data() + found.offset, std::nullopt};
}

void WorkQueues::endWrite(std::uint32_t tag) noexcept {
  const std::lock_guard guard(lock_);
  if (StagTable::Entry* entry = tags_.find(tag)) entry->isPlacing = false;
}

std::optional<Receiver::ReadSink> WorkQueues::oldestRead() noexcept {
  const std::lock_guard guard(lock_);
  if (reads_.empty()) return std::nullopt;
  const OutstandingRead& read = reads_.front();
  return Receiver::ReadSink{read.tag, tags_.addressOf(read.tag), memoryOf(read.segment)};
}

void WorkQueues::endRead() noexcept {
  const std::lock_guard guard(lock_);
  const OutstandingRead& read = reads_.front();
  complete({.workRequestId = read.workRequestId, .opcode = Opcode::read, .status = Status::success, .byteLength = read.segment.length});
  tags_.erase(read.tag);
  reads_.pop_front();
}

std::optional<Violation> WorkQueues::readRequested(const ReadRequest& request) noexcept {
  std::unique_lock guard(lock_);
  if (responsesDue_ >= ird_) {
    guard.unlock();
    catchUp_();
    guard.lock();
  }
  if (responsesDue_ >= ird_) {
    return Violation{"the peer has more RDMA Reads outstanding than the " + std::to_string(ird_) + " that were agreed",
                     terminate_code::untaggedNoBuffer};
  }
  Message response;
  response.type = MessageType::readResponse;
  response.tag = request.sinkTag;
  response.address = request.sinkAddress;
  if (request.length > 0) {
    const auto found = tags_.check(request.sourceTag, request.sourceAddress, request.length, TagRight::remoteRead);
    if (found.fault != TagFault::none) return readViolation(found.fault, request);
    ++found.entry->readers;
    response.sourceTag = request.sourceTag;
    response.segments[0] = {found.entry->segment.arena, found.entry->segment.offset + found.offset, request.length};
  }
  ++responsesDue_;
  responses_.push_back(std::move(response));
  return std::nullopt;
}

// ---- Transmitter::Host ----

bool WorkQueues::nextMessage(Message& message) noexcept {
  const std::lock_guard guard(lock_);
  isResponsesTurn_ = !isResponsesTurn_;
  if (isResponsesTurn_) return nextResponse(message) || nextPosted(message);
  return nextPosted(message) || nextResponse(message);
}

bool WorkQueues::nextResponse(Message& message) {
  if (responses_.empty()) return false;
  message = std::move(responses_.front());
  responses_.pop_front();
  return true;
}

bool WorkQueues::nextPosted(Message& message) {
  if (!waitingReads_.empty() && reads_.size() < ord_) {
    message = std::move(waitingReads_.front());
    waitingReads_.pop_front();
    beginRead(message);
    return true;
  }
  while (!posted_.empty()) {
    message = std::move(posted_.front());
    posted_.pop_front();
    if (message.type != MessageType::readRequest) {
      transmitting_.push_back({.workRequestId = message.workRequestId, .opcode = opcodeOf(message), .byteLength = message.length()});
      return true;
    }
    if (ord_ == 0) {
      complete({.workRequestId = message.workRequestId, .opcode = Opcode::read, .status = Status::failed, .byteLength = message.length()});
      wasReadImpossible_ = true;
      continue;
    }
    if (reads_.size() < ord_ && waitingReads_.empty()) {
      beginRead(message);
      return true;
    }
    waitingReads_.push_back(std::move(message));
  }
  return false;
}

void WorkQueues::beginRead(Message& message) {
  // There is room for it: the table has an entry for each Read that may be outstanding.
  Segment sink = std::move(message.segments[0]);
  message.segments[0] = Segment{};
  message.request.sinkTag = tags_.insert(sink, TagRight::readSink);
  message.request.sinkAddress = tags_.addressOf(message.request.sinkTag);
  reads_.push_back({message.workRequestId, message.request.sinkTag, std::move(sink)});
}

void WorkQueues::messageSent(const Message& message) noexcept {
  const std::lock_guard guard(lock_);
  switch (message.type) {
    case MessageType::readRequest: return;
    case MessageType::readResponse:
      --responsesDue_;
      if (StagTable::Entry* entry = tags_.find(message.sourceTag)) --entry->readers;
      return;
    default:
      complete(transmitting_.front());
      transmitting_.pop_front();
  }
}

}  // namespace iserfs::rdma::iwarp
