#include "frames.h"

#include "iwarp/bytes.h"
#include "iwarp/crc32c.h"
#include "support.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

Bytes sealed(Bytes bytes) {
  bytes.resize(bytes.size() + padLength(bytes.size()));
  const std::uint32_t crc = ~crc32cUpdate(crc32cStart, bytes.data(), bytes.size());
  bytes.resize(bytes.size() + crcLength);
  storeLe32(&bytes[bytes.size() - crcLength], crc);
  return bytes;
}

Bytes frame(SegmentHeader header, std::span<const std::byte> payload) {
  header.payloadLength = static_cast<std::uint32_t>(payload.size());
  Bytes bytes(untaggedHeaderLength);
  bytes.resize(writeSegmentHeader(bytes.data(), header));
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return sealed(std::move(bytes));
}

Bytes sendFrame(std::uint32_t messageNumber, std::uint32_t offset, std::span<const std::byte> payload, bool last) {
  return frame({.type = MessageType::send, .last = last, .queueNumber = sendQueue, .messageNumber = messageNumber, .messageOffset = offset},
               payload);
}

Bytes writeFrame(std::uint32_t tag, std::uint64_t address, std::span<const std::byte> payload, bool last) {
  return frame({.type = MessageType::write, .last = last, .tag = tag, .taggedOffset = address}, payload);
}

Bytes responseFrame(std::uint32_t tag, std::uint64_t address, std::span<const std::byte> payload, bool last) {
  return frame({.type = MessageType::readResponse, .last = last, .tag = tag, .taggedOffset = address}, payload);
}

Bytes readRequestFrame(std::uint32_t messageNumber, const ReadRequest& request) {
  Bytes payload(readRequestLength);
  writeReadRequest(payload.data(), request);
  return frame({.type = MessageType::readRequest, .last = true, .queueNumber = readRequestQueue, .messageNumber = messageNumber}, payload);
}

Bytes operator+(Bytes first, const Bytes& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

Bytes patternBytes(std::uint32_t length, std::uint32_t seed) {
  const Segment segment = memory(length);
  fillPattern(segment, seed);
  return {segment.data(), segment.data() + length};
}

}  // namespace iserfs::test
