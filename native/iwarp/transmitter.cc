#include "transmitter.h"

#include <algorithm>

#include "bytes.h"
#include "crc32c.h"

namespace iserfs::rdma::iwarp {

namespace {

constexpr std::size_t page = 4096;

/** Payloads of whole pages suit the receiver's copy; of whole words they need no pad. */
std::size_t payloadRoom(std::size_t maximumFpdu, std::size_t header) {
  const std::size_t room = (maximumFpdu - header - crcLength) / 4 * 4;
  return room >= 2 * page ? room / page * page : room;
}

}  // namespace

Transmitter::Transmitter(Host& host, bool addCrc, std::size_t maximumFpdu)
    : host_(host), addCrc_(addCrc), maximumFpdu_(maximumFpdu), frames_(frameRing) {
  parts_.reserve(frameRing * partsOfFrame);
}

std::span<const iovec> Transmitter::gather(std::size_t enough) {
  parts_.clear();
  std::size_t length = 0;
  for (std::size_t i = 0; length < enough && (i < frameCount_ || buildFrame()); ++i) {
    const std::size_t skip = i == 0 ? firstFrameSent_ : 0;
    addParts(frameAt(i), skip);
    length += frameAt(i).length - skip;
  }
  return parts_;
}

void Transmitter::sent(std::size_t length) {
  firstFrameSent_ += length;
  while (frameCount_ > 0 && firstFrameSent_ >= frameAt(0).length) {
    firstFrameSent_ -= frameAt(0).length;
    const bool endsMessage = frameAt(0).endsMessage;
    firstFrame_ = (firstFrame_ + 1) % frameRing;
    --frameCount_;
    if (endsMessage) {
      const Message message = std::move(current_.front());
      current_.pop_front();
      host_.messageSent(message);
    }
  }
}

void Transmitter::clear() noexcept {
  frameCount_ = 0;
  firstFrameSent_ = 0;
  current_.clear();
  lastIsBuilt_ = true;
  parts_.clear();
}

std::span<const iovec> Transmitter::gatherTerminate(std::span<const std::byte> payload) {
  parts_.clear();
  frameCount_ = firstFrameSent_ > 0 ? 1 : 0;
  if (frameCount_ > 0) addParts(frameAt(0), firstFrameSent_);
  Frame& frame = frameAt(frameCount_++);
  frame.payloadCount = 0;
  SegmentHeader header;
  header.type = MessageType::terminate;
  header.last = true;
  header.queueNumber = terminateQueue;
  header.messageNumber = 1;
  header.payloadLength = static_cast<std::uint32_t>(payload.size());
  frame.headerLength = writeSegmentHeader(frame.header.data(), header);
  // The frame refers to the caller's bytes, which it only reads.
  frame.payload[frame.payloadCount++] = {const_cast<std::byte*>(payload.data()), payload.size()};
  finishFrame(frame);
  addParts(frame, 0);
  return parts_;
}

void Transmitter::addParts(const Frame& frame, std::size_t skip) {
  const auto add = [this, &skip](const void* data, std::size_t length) {
    const std::size_t skipped = std::min(skip, length);
    skip -= skipped;
    if (length > skipped) {
      parts_.push_back({const_cast<std::byte*>(static_cast<const std::byte*>(data)) + skipped, length - skipped});
    }
  };
  add(frame.header.data(), frame.headerLength);
  for (std::size_t i = 0; i < frame.payloadCount; ++i) add(frame.payload[i].iov_base, frame.payload[i].iov_len);
  add(frame.trailer.data(), frame.trailerLength);
}

bool Transmitter::buildFrame() {
  if (frameCount_ == frameRing) return false;
  if (lastIsBuilt_) {
    Message message;
    if (!host_.nextMessage(message)) return false;
    current_.push_back(std::move(message));
    lastIsBuilt_ = false;
    builtOfLast_ = 0;
  }
  const Message& message = current_.back();
  Frame& frame = frameAt(frameCount_);
  frame.payloadCount = 0;
  const std::size_t taken = buildSegment(frame, message);
  finishFrame(frame);
  builtOfLast_ += static_cast<std::uint32_t>(taken);
  lastIsBuilt_ = frame.endsMessage;
  ++frameCount_;
  if (lastIsBuilt_ && isSend(message.type)) ++sendNumber_;
  if (message.type == MessageType::readRequest) ++readRequestNumber_;
  return true;
}

/** Header and payload. Returns how many bytes of the message's memory are in it. */
std::size_t Transmitter::buildSegment(Frame& frame, const Message& message) {
  SegmentHeader header;
  header.type = message.type;
  header.tag = message.tag;
  if (message.type == MessageType::readRequest) {
    header.last = true;
    header.queueNumber = readRequestQueue;
    header.messageNumber = readRequestNumber_;
    header.payloadLength = readRequestLength;
    frame.headerLength = writeSegmentHeader(frame.header.data(), header) + readRequestLength;
    writeReadRequest(&frame.header[untaggedHeaderLength], message.request);
    frame.endsMessage = true;
    return 0;
  }
  const std::size_t room = payloadRoom(maximumFpdu_, isTagged(message.type) ? taggedHeaderLength : untaggedHeaderLength);
  const std::size_t length = std::min<std::size_t>(room, message.length() - builtOfLast_);
  frame.endsMessage = builtOfLast_ + length == message.length();
  header.last = frame.endsMessage;
  header.payloadLength = static_cast<std::uint32_t>(length);
  if (isTagged(message.type)) {
    header.taggedOffset = message.address + builtOfLast_;
  } else {
    header.queueNumber = sendQueue;
    header.messageNumber = sendNumber_;
    header.messageOffset = builtOfLast_;
  }
  frame.headerLength = writeSegmentHeader(frame.header.data(), header);
  std::size_t from = builtOfLast_;
  std::size_t left = length;
  for (const Segment& segment : message.segments) {
    const std::size_t taken = from < segment.length ? std::min(left, segment.length - from) : 0;
    if (taken > 0) frame.payload[frame.payloadCount++] = {segment.data() + from, taken};
    from -= std::min<std::size_t>(from, segment.length);
    left -= taken;
  }
  return length;
}

void Transmitter::finishFrame(Frame& frame) const noexcept {
  std::size_t length = frame.headerLength;
  std::uint32_t crc = addCrc_ ? crc32cUpdate(crc32cStart, frame.header.data(), frame.headerLength) : 0;
  for (std::size_t i = 0; i < frame.payloadCount; ++i) {
    const iovec& part = frame.payload[i];
    if (addCrc_) crc = crc32cUpdate(crc, static_cast<const std::byte*>(part.iov_base), part.iov_len);
    length += part.iov_len;
  }
  const std::size_t pad = padLength(length);
  std::fill_n(frame.trailer.begin(), pad, std::byte{0});
  if (addCrc_) crc = ~crc32cUpdate(crc, frame.trailer.data(), pad);
  storeLe32(&frame.trailer[pad], crc);
  frame.trailerLength = pad + crcLength;
  frame.length = length + frame.trailerLength;
}

}  // namespace iserfs::rdma::iwarp
