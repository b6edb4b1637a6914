#include "rdmap.h"

#include <algorithm>
#include <array>

#include "bytes.h"

namespace iserfs::rdma::iwarp {

namespace {

constexpr unsigned taggedFlag = 0x80;
constexpr unsigned lastFlag = 0x40;
constexpr unsigned ddpVersionMask = 0x03;
constexpr unsigned ddpVersion1 = 0x01;
constexpr unsigned rdmapVersionMask = 0xc0;
constexpr unsigned rdmapVersion1 = 0x40;
constexpr unsigned opcodeMask = 0x0f;

/** The header control bits of a Terminate message (RFC 5040 §4.8), in its third byte. */
constexpr unsigned segmentLengthPresent = 0x80;
constexpr unsigned ddpHeaderPresent = 0x40;
constexpr unsigned rdmapHeaderPresent = 0x20;
/** The same as Linux siw has them: M, D and R from the lowest bit on. */
constexpr unsigned siwHeaderBits = 0x07;
constexpr unsigned siwRdmapHeaderPresent = 0x04;

struct Words {
  TerminateCode code;
  const char* text;
};

constexpr std::array<Words, 32> dictionary{{
    {{0, 0, 0x00}, "RDMAP: catastrophic error at the peer"},
    {{0, 1, 0x00}, "RDMAP: invalid STag"},
    {{0, 1, 0x01}, "RDMAP: out of the bounds of an STag"},
    {{0, 1, 0x02}, "RDMAP: an STag does not allow this access"},
    {{0, 1, 0x03}, "RDMAP: an STag is not associated with this connection"},
    {{0, 1, 0x04}, "RDMAP: tagged offset wraps"},
    {{0, 1, 0x09}, "RDMAP: an STag cannot be invalidated"},
    {{0, 1, 0xff}, "RDMAP: protection error"},
    {{0, 2, 0x05}, "RDMAP: invalid version"},
    {{0, 2, 0x06}, "RDMAP: unexpected opcode"},
    {{0, 2, 0x07}, "RDMAP: catastrophic error on this connection"},
    {{0, 2, 0x08}, "RDMAP: catastrophic error of the device"},
    {{0, 2, 0x09}, "RDMAP: an STag cannot be invalidated"},
    {{0, 2, 0xff}, "RDMAP: operation error"},
    {{1, 0, 0x00}, "DDP: catastrophic error at the peer"},
    {{1, 1, 0x00}, "DDP: invalid STag"},
    {{1, 1, 0x01}, "DDP: out of the bounds of an STag"},
    {{1, 1, 0x02}, "DDP: an STag is not associated with this connection"},
    {{1, 1, 0x03}, "DDP: tagged offset wraps"},
    {{1, 1, 0x04}, "DDP: invalid version in a tagged segment"},
    {{1, 2, 0x01}, "DDP: invalid queue number"},
    {{1, 2, 0x02}, "DDP: no buffer posted for the message"},
    {{1, 2, 0x03}, "DDP: message sequence number out of range"},
    {{1, 2, 0x04}, "DDP: invalid message offset"},
    {{1, 2, 0x05}, "DDP: message too long for the posted buffer"},
    {{1, 2, 0x06}, "DDP: invalid version in an untagged segment"},
    {{2, 0, 0x02}, "MPA: CRC error"},
    {{2, 0, 0x03}, "MPA: marker or frame length is wrong"},
    {{2, 0, 0x04}, "MPA: invalid request or reply"},
    {{2, 0, 0x05}, "MPA: catastrophic error at the peer"},
    {{2, 0, 0x06}, "MPA: not enough RDMA Reads granted (IRD)"},
    {{2, 0, 0x07}, "MPA: no common ready-to-receive message"},
}};

const char* wordsFor(TerminateCode code) noexcept {
  const auto* found = std::find_if(dictionary.begin(), dictionary.end(), [code](const Words& words) { return words.code == code; });
  return found == dictionary.end() ? nullptr : found->text;
}

}  // namespace

std::string hex(std::uint64_t value, int digits) {
  std::string text(static_cast<std::size_t>(digits), '0');
  for (auto at = text.rbegin(); at != text.rend(); ++at, value >>= 4) *at = "0123456789abcdef"[value & 0xf];
  return "0x" + text;
}

std::size_t headerLength(std::byte ddpControl) noexcept {
  return (std::to_integer<unsigned>(ddpControl) & taggedFlag) != 0 ? taggedHeaderLength : untaggedHeaderLength;
}

std::optional<Violation> parseSegmentHeader(std::span<const std::byte> bytes, SegmentHeader& header) {
  const std::size_t ulpduLength = loadBe16(bytes.data());
  const auto ddp = std::to_integer<unsigned>(bytes[2]);
  const auto rdmap = std::to_integer<unsigned>(bytes[3]);
  const bool tagged = (ddp & taggedFlag) != 0;
  if ((ddp & ddpVersionMask) != ddpVersion1) {
    return Violation{"the peer sent a segment of DDP version " + std::to_string(ddp & ddpVersionMask),
                     tagged ? terminate_code::ddpVersion : terminate_code::untaggedVersion};
  }
  if ((rdmap & rdmapVersionMask) != rdmapVersion1) {
    return Violation{"the peer sent a message of RDMAP version " + std::to_string((rdmap & rdmapVersionMask) >> 6),
                     terminate_code::rdmapVersion};
  }
  const unsigned opcode = rdmap & opcodeMask;
  header = SegmentHeader{};
  header.type = static_cast<MessageType>(opcode);
  if (opcode > static_cast<unsigned>(MessageType::terminate) || isTagged(header.type) != tagged) {
    return Violation{"the peer sent RDMAP opcode " + std::to_string(opcode) + " in " + (tagged ? "a tagged" : "an untagged") + " segment",
                     terminate_code::unexpectedOpcode};
  }
  const std::size_t length = bytes.size() - fpduLengthField;
  if (ulpduLength < length) {
    return Violation{"the peer sent a frame of " + std::to_string(ulpduLength) + " bytes, too short for its header",
                     terminate_code::streamCatastrophe};
  }
  header.last = (ddp & lastFlag) != 0;
  header.payloadLength = static_cast<std::uint32_t>(ulpduLength - length);
  header.tag = loadBe32(&bytes[4]);
  if (tagged) {
    header.taggedOffset = loadBe64(&bytes[8]);
  } else {
    header.queueNumber = loadBe32(&bytes[8]);
    header.messageNumber = loadBe32(&bytes[12]);
    header.messageOffset = loadBe32(&bytes[16]);
  }
  return std::nullopt;
}

std::size_t writeSegmentHeader(std::byte* to, const SegmentHeader& header) noexcept {
  const bool tagged = isTagged(header.type);
  const std::size_t length = tagged ? taggedHeaderLength : untaggedHeaderLength;
  storeBe16(to, static_cast<std::uint16_t>(length - fpduLengthField + header.payloadLength));
  to[2] = static_cast<std::byte>((tagged ? taggedFlag : 0) | (header.last ? lastFlag : 0) | ddpVersion1);
  to[3] = static_cast<std::byte>(rdmapVersion1 | static_cast<unsigned>(header.type));
  storeBe32(to + 4, header.tag);
  if (tagged) {
    storeBe64(to + 8, header.taggedOffset);
  } else {
    storeBe32(to + 8, header.queueNumber);
    storeBe32(to + 12, header.messageNumber);
    storeBe32(to + 16, header.messageOffset);
  }
  return length;
}

ReadRequest parseReadRequest(std::span<const std::byte, readRequestLength> bytes) noexcept {
  return {loadBe32(&bytes[0]), loadBe64(&bytes[4]), loadBe32(&bytes[12]), loadBe32(&bytes[16]), loadBe64(&bytes[20])};
}

void writeReadRequest(std::byte* to, const ReadRequest& request) noexcept {
  storeBe32(to, request.sinkTag);
  storeBe64(to + 4, request.sinkAddress);
  storeBe32(to + 12, request.length);
  storeBe32(to + 16, request.sourceTag);
  storeBe64(to + 20, request.sourceAddress);
}

std::vector<std::byte> buildTerminate(TerminateCode code, std::span<const std::byte> offending) {
  const bool hasSegment = offending.size() > fpduLengthField;
  std::vector<std::byte> payload(hasSegment ? 4 + offending.size() : 4);
  payload[0] = static_cast<std::byte>(code.layer << 4 | code.type);
  payload[1] = static_cast<std::byte>(code.code);
  if (hasSegment) {
    const bool hasReadRequest = offending.size() == untaggedHeaderLength + readRequestLength;
    payload[2] = static_cast<std::byte>(segmentLengthPresent | ddpHeaderPresent | (hasReadRequest ? rdmapHeaderPresent : 0));
    std::copy(offending.begin(), offending.end(), payload.begin() + 4);
  }
  return payload;
}

std::string describeTerminate(std::span<const std::byte> payload) {
  if (payload.size() < 3) return "the peer ended the connection with a Terminate message that is cut off";
  const auto high = static_cast<std::uint8_t>(payload[0] >> 4);
  const auto low = static_cast<std::uint8_t>(payload[0] & std::byte{0xf});
  const auto code = std::to_integer<std::uint8_t>(payload[1]);
  const auto control = std::to_integer<unsigned>(payload[2]);
  const bool mayBeRfc = (control & siwHeaderBits) == 0;
  const bool mayBeSiw = control == 0 ? high != low : !mayBeRfc;
  const char* asWritten = mayBeRfc ? wordsFor({high, low, code}) : nullptr;
  const char* swapped = mayBeSiw ? wordsFor({low, high, code}) : nullptr;
  std::string text = "the peer ended the connection with Terminate (";
  if (asWritten != nullptr) text += asWritten;
  if (asWritten != nullptr && swapped != nullptr) text += "; or, as Linux siw orders the bits, ";
  if (swapped != nullptr) text += swapped;
  if (asWritten == nullptr && swapped == nullptr) {
    text += "layer " + std::to_string(high) + ", type " + std::to_string(low) + ", code " + hex(code, 2);
  }
  return text + ")";
}

bool blamesReadRequest(std::span<const std::byte> payload) noexcept {
  return payload.size() > 2 && (std::to_integer<unsigned>(payload[2]) & (rdmapHeaderPresent | siwRdmapHeaderPresent)) != 0;
}

}  // namespace iserfs::rdma::iwarp
