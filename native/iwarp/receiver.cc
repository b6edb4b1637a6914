#include "receiver.h"

#include <algorithm>
#include <cstring>

#include "bytes.h"
#include "crc32c.h"

namespace iserfs::rdma::iwarp {

namespace {

constexpr std::size_t stagingLength = 64 * 1024;
/** Read behind a large payload: its CRC and the next header, and most of a short message. */
constexpr std::size_t tailLength = 512;
/** Payloads from here on are worth a system call of their own. */
constexpr std::size_t largePayload = 8 * 1024;
constexpr unsigned largeFrameMemory = 8;

constexpr std::size_t leastTerminate = 2;

std::string quoted(MessageType type) {
  switch (type) {
    case MessageType::write: return "an RDMA Write";
    case MessageType::readRequest: return "an RDMA Read Request";
    case MessageType::readResponse: return "an RDMA Read Response";
    case MessageType::terminate: return "a Terminate message";
    default: return "a Send";
  }
}

}  // namespace

Receiver::Receiver(Host& host, bool checkCrc, Rtr rtr)
    : host_(host), checkCrc_(checkCrc), rtrSendExpected_(rtr == Rtr::send), staging_(stagingLength) {}

bool Receiver::isIdle() const noexcept {
  return stage_ == Stage::header && available() == 0 && !tagged_.isOpen && !send_.isOpen;
}

std::span<const iovec> Receiver::buffers() noexcept {
  if (begin_ > 0) {
    std::memmove(staging_.data(), staging_.data() + begin_, available());
    end_ -= begin_;
    begin_ = 0;
  }
  const std::size_t room = staging_.size() - end_;
  // In the middle of a message it is not more than what lies between two payloads, so that the next one begins where it belongs: a copy
  // to the beginning of a page is faster than one to anywhere else.
  const bool isAmidst = stage_ == Stage::payload && isTagged(segment_.type) && !segment_.last;
  const std::size_t tail = isAmidst ? pad_ + crcLength + taggedHeaderLength : tailLength;
  const iovec staged{staging_.data() + end_, largeFrameCredit_ > 0 ? std::min(room, tail) : room};
  if (stage_ != Stage::payload) {
    buffers_[0] = staged;
    return {buffers_.data(), 1};
  }
  buffers_[0] = {place_, remaining_};
  buffers_[1] = staged;
  return buffers_;
}

Receiver::State Receiver::filled(std::size_t length) noexcept {
  if (state_ != State::running) return state_;
  if (stage_ == Stage::payload) {
    const std::size_t direct = std::min(length, remaining_);
    length -= direct;
    advancePayload(direct);
  }
  end_ += length;
  process();
  return state_;
}

Receiver::State Receiver::feed(std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty() && state_ == State::running) {
    std::size_t taken = 0;
    for (const iovec& buffer : buffers()) {
      const std::size_t length = std::min(buffer.iov_len, bytes.size() - taken);
      std::memcpy(buffer.iov_base, bytes.data() + taken, length);
      taken += length;
    }
    filled(taken);
    bytes = bytes.subspan(taken);
  }
  return state_;
}

void Receiver::process() noexcept {
  while (state_ == State::running) {
    bool isDone = false;
    switch (stage_) {
      case Stage::header: isDone = takeHeader(); break;
      case Stage::payload: isDone = takePayload(); break;
      case Stage::trailer: isDone = takeTrailer(); break;
    }
    if (!isDone) return;
  }
}

/** Each of the three: whether there were enough bytes to go on to the next stage. */
bool Receiver::takeHeader() noexcept {
  if (available() <= fpduLengthField) return false;
  const std::size_t length = headerLength(staging_[begin_ + fpduLengthField]);
  if (available() < length) return false;
  std::memcpy(header_.data(), &staging_[begin_], length);
  headerFilled_ = length;
  begin_ += length;
  auto violation = parseSegmentHeader({header_.data(), length}, segment_);
  if (!violation) {
    crc_ = checkCrc_ ? crc32cUpdate(crc32cStart, header_.data(), length) : 0;
    pad_ = padLength(length + segment_.payloadLength);
    remaining_ = segment_.payloadLength;
    if (remaining_ >= largePayload) {
      largeFrameCredit_ = largeFrameMemory;
    } else if (largeFrameCredit_ > 0) {
      --largeFrameCredit_;
    }
    violation = beginSegment();
  }
  if (violation) {
    fail(std::move(*violation));
    return false;
  }
  stage_ = remaining_ > 0 ? Stage::payload : Stage::trailer;
  return true;
}

bool Receiver::takePayload() noexcept {
  const std::size_t length = std::min(available(), remaining_);
  if (length > 0) {
    std::memcpy(place_, &staging_[begin_], length);
    begin_ += length;
    advancePayload(length);
  }
  return remaining_ == 0;
}

void Receiver::advancePayload(std::size_t length) noexcept {
  if (checkCrc_) crc_ = crc32cUpdate(crc_, place_, length);
  place_ += length;
  remaining_ -= length;
  if (remaining_ == 0) stage_ = Stage::trailer;
}

bool Receiver::takeTrailer() noexcept {
  const std::size_t length = pad_ + crcLength;
  if (available() < length) return false;
  const std::byte* trailer = &staging_[begin_];
  begin_ += length;
  if (checkCrc_ && ~crc32cUpdate(crc_, trailer, pad_) != loadLe32(trailer + pad_)) {
    fail({"the CRC of a frame from the peer is wrong", terminate_code::crcError});
    return false;
  }
  stage_ = Stage::header;
  ++frames_;
  if (auto violation = endSegment()) fail(std::move(*violation));
  return true;
}

void Receiver::fail(Violation violation) noexcept {
  violation_ = std::move(violation);
  state_ = State::violated;
}

std::optional<Violation> Receiver::beginSegment() noexcept {
  return isTagged(segment_.type) ? beginTagged() : beginUntagged();
}

std::optional<Violation> Receiver::beginTagged() noexcept {
  if (tagged_.isOpen) {
    if (segment_.type != tagged_.type) {
      return Violation{"the peer began " + quoted(segment_.type) + " in the middle of " + quoted(tagged_.type),
                       terminate_code::unexpectedOpcode};
    }
    if (segment_.tag != tagged_.tag) {
      return Violation{"the peer changed the STag in the middle of " + quoted(tagged_.type), terminate_code::taggedInvalidTag};
    }
    if (segment_.taggedOffset != tagged_.next) {
      return Violation{"the peer left a gap in " + quoted(tagged_.type), terminate_code::taggedOutOfBounds};
    }
  }
  if (segment_.type == MessageType::readResponse) return beginReadResponse();
  if (remaining_ == 0) return std::nullopt;
  Place place = host_.beginWrite(segment_.tag, segment_.taggedOffset, segment_.payloadLength);
  place_ = place.memory;
  return std::move(place.violation);
}

std::optional<Violation> Receiver::beginReadResponse() noexcept {
  const auto sink = host_.oldestRead();
  if (!sink) return Violation{"the peer answered an RDMA Read that was not asked for", terminate_code::unexpectedOpcode};
  if (segment_.tag != sink->tag) {
    return Violation{"the peer answered an RDMA Read with another STag", terminate_code::taggedInvalidTag};
  }
  if (segment_.taggedOffset != sink->address + readReceived_) {
    return Violation{"the peer answered an RDMA Read at another offset", terminate_code::taggedOutOfBounds};
  }
  const std::size_t due = sink->memory.size() - readReceived_;
  if (remaining_ > due) {
    return Violation{"the peer answered an RDMA Read with more than was asked for", terminate_code::taggedOutOfBounds};
  }
  if (segment_.last != (remaining_ == due)) {
    return Violation{segment_.last ? "the peer answered an RDMA Read with less than was asked for"
                                   : "the peer did not end its answer to an RDMA Read",
                     terminate_code::taggedOutOfBounds};
  }
  place_ = sink->memory.data() + readReceived_;
  return std::nullopt;
}

std::optional<Violation> Receiver::beginUntagged() noexcept {
  const std::uint32_t queue = isSend(segment_.type)                          ? sendQueue
                              : segment_.type == MessageType::readRequest ? readRequestQueue
                                                                            : terminateQueue;
  if (segment_.queueNumber != queue) {
    return Violation{"the peer sent " + quoted(segment_.type) + " on queue " + std::to_string(segment_.queueNumber),
                     terminate_code::untaggedQueue};
  }
  if (segment_.type == MessageType::terminate) return beginControl(leastTerminate, control_.size());
  if (isSend(segment_.type)) return beginSend();
  if (send_.isOpen) {
    return Violation{"the peer began an RDMA Read Request in the middle of a Send", terminate_code::unexpectedOpcode};
  }
  if (segment_.messageNumber != nextReadRequestNumber_) {
    return Violation{"the peer sent RDMA Read Request " + std::to_string(segment_.messageNumber) + " where " +
                         std::to_string(nextReadRequestNumber_) + " was due",
                     terminate_code::untaggedMessageNumber};
  }
  if (segment_.messageOffset != 0) {
    return Violation{"the peer sent an RDMA Read Request with an offset", terminate_code::untaggedMessageOffset};
  }
  return beginControl(readRequestLength, readRequestLength);
}

std::optional<Violation> Receiver::beginControl(std::size_t least, std::size_t most) noexcept {
  if (remaining_ < least || remaining_ > most || !segment_.last) {
    return Violation{"the peer sent " + quoted(segment_.type) + " of an impossible length", terminate_code::streamCatastrophe};
  }
  controlFilled_ = remaining_;
  place_ = control_.data();
  return std::nullopt;
}

std::optional<Violation> Receiver::beginSend() noexcept {
  if (segment_.messageNumber != nextSendNumber_) {
    return Violation{"the peer sent message " + std::to_string(segment_.messageNumber) + " where " +
                         std::to_string(nextSendNumber_) + " was due",
                     terminate_code::untaggedMessageNumber};
  }
  const std::uint32_t received = send_.isOpen ? send_.length : 0;
  if (segment_.messageOffset != received) {
    return Violation{"the peer sent the bytes from " + std::to_string(segment_.messageOffset) + " of a message where those from " +
                         std::to_string(received) + " were due",
                     terminate_code::untaggedMessageOffset};
  }
  if (rtrSendExpected_ && remaining_ == 0 && segment_.last && !invalidates(segment_.type)) return std::nullopt;
  rtrSendExpected_ = false;
  if (!send_.isOpen) {
    const auto memory = host_.beginMessage();
    if (!memory) return Violation{"the peer sent a message when no receive was posted", terminate_code::untaggedNoBuffer};
    send_ = {true, segment_.type, *memory, 0};
  } else if (segment_.type != send_.type) {
    return Violation{"the peer changed the opcode in the middle of a Send", terminate_code::unexpectedOpcode};
  }
  if (remaining_ > send_.memory.size() - received) {
    return Violation{"the peer sent a message longer than the " + std::to_string(send_.memory.size()) + " bytes of the posted receive",
                     terminate_code::untaggedTooLong};
  }
  place_ = send_.memory.data() + received;
  return std::nullopt;
}

std::optional<Violation> Receiver::endSegment() noexcept {
  if (isSend(segment_.type)) return endSend();
  rtrSendExpected_ = false;
  if (isTagged(segment_.type)) return endTagged();
  if (segment_.type == MessageType::readRequest) return endReadRequest();
  state_ = State::terminated;
  return std::nullopt;
}

std::optional<Violation> Receiver::endTagged() noexcept {
  tagged_ = {!segment_.last, segment_.type, segment_.tag, segment_.taggedOffset + segment_.payloadLength};
  if (segment_.type == MessageType::write) {
    if (segment_.payloadLength > 0) host_.endWrite(segment_.tag);
    return std::nullopt;
  }
  readReceived_ += segment_.payloadLength;
  if (segment_.last) {
    readReceived_ = 0;
    host_.endRead();
  }
  return std::nullopt;
}

std::optional<Violation> Receiver::endSend() noexcept {
  if (segment_.last) ++nextSendNumber_;
  if (rtrSendExpected_) {
    rtrSendExpected_ = false;
    return std::nullopt;
  }
  send_.length += segment_.payloadLength;
  if (!segment_.last) return std::nullopt;
  send_.isOpen = false;
  return host_.endMessage(send_.length, invalidates(send_.type) ? std::optional(segment_.tag) : std::nullopt);
}

std::optional<Violation> Receiver::endReadRequest() noexcept {
  ++nextReadRequestNumber_;
  std::copy_n(control_.begin(), readRequestLength, header_.begin() + untaggedHeaderLength);
  headerFilled_ = untaggedHeaderLength + readRequestLength;
  return host_.readRequested(parseReadRequest(std::span(control_).first<readRequestLength>()));
}

}  // namespace iserfs::rdma::iwarp
