/**
 * The headers of DDP (RFC 5041) and RDMAP (RFC 5040) as they stand in an FPDU, and the Terminate message in bytes and in words. It
 * knows no state: whether a header is legal at this point is for the receiver.
 *
 *     FPDU      length(2) | DDP control(1) RDMAP control(1) | DDP header | payload | pad(0-3) | CRC(4)
 *     tagged    STag(4) TO(8)                          RDMA Write, RDMA Read Response
 *     untagged  Invalidate STag(4) QN(4) MSN(4) MO(4)  Send*, RDMA Read Request, Terminate
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "provider.h"

namespace iserfs::rdma::iwarp {

/** Offsets count from the FPDU's length field, so headers include those two bytes. */
inline constexpr std::size_t fpduLengthField = 2;
inline constexpr std::size_t taggedHeaderLength = 16;
inline constexpr std::size_t untaggedHeaderLength = 20;
inline constexpr std::size_t readRequestLength = 28;
inline constexpr std::size_t crcLength = 4;

/** RFC 5040 §4.1. */
enum class MessageType : std::uint8_t {
  write = 0,
  readRequest = 1,
  readResponse = 2,
  send = 3,
  sendInvalidate = 4,
  sendEvent = 5,
  sendEventInvalidate = 6,
  terminate = 7,
};

inline bool isSend(MessageType type) noexcept { return type >= MessageType::send && type <= MessageType::sendEventInvalidate; }
inline bool invalidates(MessageType type) noexcept {
  return type == MessageType::sendInvalidate || type == MessageType::sendEventInvalidate;
}
inline bool isTagged(MessageType type) noexcept { return type == MessageType::write || type == MessageType::readResponse; }

/** Untagged queues (RFC 5040 §4.2). */
inline constexpr std::uint32_t sendQueue = 0;
inline constexpr std::uint32_t readRequestQueue = 1;
inline constexpr std::uint32_t terminateQueue = 2;

/** The header of one DDP segment. What the other form of header has is 0. */
struct SegmentHeader {
  MessageType type = MessageType::send;
  bool last = false;
  /** Tagged: where to. Untagged: the tag to invalidate. */
  std::uint32_t tag = 0;
  std::uint64_t taggedOffset = 0;
  std::uint32_t queueNumber = 0;
  std::uint32_t messageNumber = 0;
  std::uint32_t messageOffset = 0;
  /** Bytes behind the header. */
  std::uint32_t payloadLength = 0;
};

/** RFC 5040 §4.4. */
struct ReadRequest {
  std::uint32_t sinkTag = 0;
  std::uint64_t sinkAddress = 0;
  std::uint32_t length = 0;
  std::uint32_t sourceTag = 0;
  std::uint64_t sourceAddress = 0;
};

/** Layer, error type and error code of a Terminate message (RFC 5040 §4.8). */
struct TerminateCode {
  std::uint8_t layer = 0;
  std::uint8_t type = 0;
  std::uint8_t code = 0;

  bool operator==(const TerminateCode&) const = default;
};

namespace terminate_code {
inline constexpr TerminateCode localCatastrophe{0, 0, 0x00};
inline constexpr TerminateCode invalidTag{0, 1, 0x00};
inline constexpr TerminateCode outOfBounds{0, 1, 0x01};
inline constexpr TerminateCode accessViolation{0, 1, 0x02};
inline constexpr TerminateCode addressWrap{0, 1, 0x04};
inline constexpr TerminateCode rdmapVersion{0, 2, 0x05};
inline constexpr TerminateCode unexpectedOpcode{0, 2, 0x06};
inline constexpr TerminateCode streamCatastrophe{0, 2, 0x07};
inline constexpr TerminateCode cannotInvalidate{0, 2, 0x09};
inline constexpr TerminateCode taggedInvalidTag{1, 1, 0x00};
inline constexpr TerminateCode taggedOutOfBounds{1, 1, 0x01};
inline constexpr TerminateCode taggedAddressWrap{1, 1, 0x03};
inline constexpr TerminateCode ddpVersion{1, 1, 0x04};
inline constexpr TerminateCode untaggedQueue{1, 2, 0x01};
inline constexpr TerminateCode untaggedNoBuffer{1, 2, 0x02};
inline constexpr TerminateCode untaggedMessageNumber{1, 2, 0x03};
inline constexpr TerminateCode untaggedMessageOffset{1, 2, 0x04};
inline constexpr TerminateCode untaggedTooLong{1, 2, 0x05};
inline constexpr TerminateCode untaggedVersion{1, 2, 0x06};
inline constexpr TerminateCode crcError{2, 0, 0x02};
inline constexpr TerminateCode insufficientIrd{2, 0, 0x06};
}  // namespace terminate_code

/** A rule that the peer broke, in words and as we tell it. */
struct Violation {
  std::string text;
  TerminateCode code;
};

/** Bytes of the header, the FPDU's length field included, told from its third byte. */
std::size_t headerLength(std::byte ddpControl) noexcept;

/**
 * `bytes`: an FPDU's length field and header, as long as `headerLength` says. The violation of a version, of an opcode, or of the
 * length, or else `header` is filled in.
 */
std::optional<Violation> parseSegmentHeader(std::span<const std::byte> bytes, SegmentHeader& header);

/** Writes the length field and header; returns how many bytes. `to` has room for `untaggedHeaderLength`. */
std::size_t writeSegmentHeader(std::byte* to, const SegmentHeader& header) noexcept;

ReadRequest parseReadRequest(std::span<const std::byte, readRequestLength> bytes) noexcept;
void writeReadRequest(std::byte* to, const ReadRequest& request) noexcept;

/** Bytes that fill an FPDU's length, header and payload up to a multiple of four. */
inline std::size_t padLength(std::size_t headerAndPayload) noexcept { return (4 - headerAndPayload % 4) % 4; }

/**
 * The payload of a Terminate message. `offending`: length field and DDP header of the segment at fault, with the Read Request
 * behind it if it was one; empty where no segment is to blame.
 */
std::vector<std::byte> buildTerminate(TerminateCode code, std::span<const std::byte> offending);

/**
 * What a Terminate message says, in words. Linux siw puts layer and type the other way round than RFC 5040 has them, and the header
 * control bits at the other end of their byte. By these bits it is known; where none is set and both readings make sense, both are
 * given.
 */
std::string describeTerminate(std::span<const std::byte> payload);

/** Whether a Terminate message is about a Read Request of ours. */
bool blamesReadRequest(std::span<const std::byte> payload) noexcept;

/** `0x0000abcd`. */
std::string hex(std::uint64_t value, int digits = 8);

}  // namespace iserfs::rdma::iwarp
