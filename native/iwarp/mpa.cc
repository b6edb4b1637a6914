#include "mpa.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "bytes.h"

namespace iserfs::rdma::iwarp {

namespace {

constexpr std::string_view requestKey = "MPA ID Req Frame";
constexpr std::string_view replyKey = "MPA ID Rep Frame";

constexpr unsigned markersFlag = 0x80;
constexpr unsigned crcFlag = 0x40;
constexpr unsigned rejectFlag = 0x20;
constexpr unsigned enhancedFlag = 0x10;

/** Control flags of RFC 6581 §4: A and B in the IRD's word, C and D in the ORD's. */
constexpr std::uint16_t upperFlag = 0x8000;
constexpr std::uint16_t lowerFlag = 0x4000;
constexpr std::uint16_t depthMask = 0x3fff;
constexpr std::size_t enhancedLength = 4;

constexpr std::uint8_t latestRevision = 2;

std::vector<std::byte> build(std::string_view key, unsigned flags, std::uint8_t revision,
                             const std::optional<MpaEnhanced>& enhanced, std::span<const std::byte> privateData) {
  const std::size_t extra = enhanced ? enhancedLength : 0;
  std::vector<std::byte> frame(mpaHeaderLength + extra + privateData.size());
  std::memcpy(frame.data(), key.data(), key.size());
  frame[16] = static_cast<std::byte>(flags);
  frame[17] = static_cast<std::byte>(revision);
  storeBe16(&frame[18], static_cast<std::uint16_t>(extra + privateData.size()));
  if (enhanced) {
    const auto word = [](std::uint16_t depth, bool upper, bool lower) {
      return static_cast<std::uint16_t>((depth & depthMask) | (upper ? upperFlag : 0) | (lower ? lowerFlag : 0));
    };
    storeBe16(&frame[mpaHeaderLength], word(enhanced->ird, enhanced->peerToPeer, enhanced->rtrSend));
    storeBe16(&frame[mpaHeaderLength + 2], word(enhanced->ord, enhanced->rtrWrite, enhanced->rtrRead));
  }
  std::copy(privateData.begin(), privateData.end(), frame.begin() + static_cast<std::ptrdiff_t>(mpaHeaderLength + extra));
  return frame;
}

std::uint16_t lesser(std::uint16_t ours, std::uint16_t theirs) {
  return theirs == mpaDepthUnknown ? ours : std::min(ours, theirs);
}

/** Writes need nothing of this end, Reads an answer, Sends a place in the receive queue. */
Rtr pickRtr(const MpaEnhanced& wanted) {
  if (!wanted.peerToPeer) return Rtr::none;
  if (wanted.rtrWrite) return Rtr::write;
  if (wanted.rtrRead) return Rtr::read;
  return wanted.rtrSend ? Rtr::send : Rtr::none;
}

MpaFault malformed(std::string text) { return {MpaFault::Kind::malformed, std::move(text)}; }

}  // namespace

std::variant<MpaHeader, MpaFault> parseMpaHeader(std::span<const std::byte, mpaHeaderLength> bytes, MpaKind kind) {
  const std::string_view key = kind == MpaKind::request ? requestKey : replyKey;
  if (std::memcmp(bytes.data(), key.data(), key.size()) != 0) {
    return malformed(kind == MpaKind::request ? "what connected does not speak iWARP (no MPA request)"
                                              : "what listens there does not speak iWARP (no MPA reply)");
  }
  const auto flags = std::to_integer<unsigned>(bytes[16]);
  MpaHeader header;
  header.markers = (flags & markersFlag) != 0;
  header.crc = (flags & crcFlag) != 0;
  header.rejected = (flags & rejectFlag) != 0;
  header.enhanced = (flags & enhancedFlag) != 0;
  header.revision = std::to_integer<std::uint8_t>(bytes[17]);
  header.privateDataLength = loadBe16(&bytes[18]);
  if (header.revision > latestRevision) {
    return malformed("the peer speaks MPA revision " + std::to_string(header.revision) + ", which is not known here");
  }
  if (header.privateDataLength > mpaMaxPrivateData) {
    return malformed("the peer announces " + std::to_string(header.privateDataLength) + " bytes of private data; MPA allows " +
                     std::to_string(mpaMaxPrivateData));
  }
  return header;
}

std::variant<MpaFrame, MpaFault> parseMpaFrame(const MpaHeader& header, std::span<const std::byte> privateData) {
  MpaFrame frame{header, std::nullopt, {}};
  std::size_t extra = 0;
  if (header.enhanced && header.revision >= 2) {
    if (privateData.size() < enhancedLength) return malformed("the peer's enhanced MPA frame has no IRD and ORD");
    const std::uint16_t ird = loadBe16(privateData.data());
    const std::uint16_t ord = loadBe16(privateData.data() + 2);
    frame.enhanced = MpaEnhanced{static_cast<std::uint16_t>(ird & depthMask), static_cast<std::uint16_t>(ord & depthMask),
                                 (ird & upperFlag) != 0,                      (ird & lowerFlag) != 0,
                                 (ord & upperFlag) != 0,                      (ord & lowerFlag) != 0};
    extra = enhancedLength;
  }
  frame.privateData.assign(privateData.begin() + static_cast<std::ptrdiff_t>(extra), privateData.end());
  return frame;
}

std::vector<std::byte> buildMpaRequest(const MpaTerms& terms) {
  const MpaEnhanced enhanced{.ird = terms.ird, .ord = terms.ord};
  return build(requestKey, enhancedFlag | (terms.crc ? crcFlag : 0), latestRevision, enhanced, terms.privateData);
}

std::variant<MpaAgreement, MpaFault> settleMpaReply(const MpaTerms& offered, const MpaFrame& reply) {
  if (reply.header.rejected) return MpaFault{MpaFault::Kind::rejected, "the peer rejected the connection"};
  if (reply.header.markers) return malformed("the peer wants MPA markers, which are not supported");
  MpaAgreement agreement;
  agreement.crc = offered.crc || reply.header.crc;
  if (!reply.enhanced) {
    // An old responder says nothing about depths: one read each way is the least that any of them grants.
    agreement.ird = offered.ird;
    agreement.ord = std::min<std::uint16_t>(offered.ord, 1);
    return agreement;
  }
  if (reply.enhanced->ord != mpaDepthUnknown && reply.enhanced->ord > offered.ird) {
    return MpaFault{MpaFault::Kind::insufficientIrd, "the peer wants " + std::to_string(reply.enhanced->ord) +
                                                         " RDMA Reads at a time where " + std::to_string(offered.ird) +
                                                         " were granted"};
  }
  agreement.ird = lesser(offered.ird, reply.enhanced->ord);
  agreement.ord = lesser(offered.ord, reply.enhanced->ird);
  return agreement;
}

std::optional<std::string> objectionToMpaRequest(const MpaFrame& request) {
  if (request.header.markers) return "the peer wants MPA markers, which are not supported";
  if (request.enhanced && request.enhanced->peerToPeer && pickRtr(*request.enhanced) == Rtr::none) {
    return "the peer asks for peer-to-peer mode without a ready-to-receive message";
  }
  return std::nullopt;
}

MpaAgreement settleMpaRequest(const MpaFrame& request, const MpaTerms& terms) {
  MpaAgreement agreement{request.header.crc, terms.ird, std::min<std::uint16_t>(terms.ord, 1), Rtr::none};
  if (!request.enhanced) return agreement;
  agreement.rtr = pickRtr(*request.enhanced);
  agreement.ird = lesser(terms.ird, request.enhanced->ord);
  agreement.ord = lesser(terms.ord, request.enhanced->ird);
  if (agreement.rtr == Rtr::read) agreement.ird = std::max<std::uint16_t>(agreement.ird, 1);
  return agreement;
}

std::vector<std::byte> buildMpaReply(const MpaFrame& request, const MpaTerms& terms) {
  const MpaAgreement agreement = settleMpaRequest(request, terms);
  std::optional<MpaEnhanced> enhanced;
  if (request.enhanced) {
    enhanced = MpaEnhanced{agreement.ird,
                           agreement.ord,
                           request.enhanced->peerToPeer,
                           agreement.rtr == Rtr::send,
                           agreement.rtr == Rtr::write,
                           agreement.rtr == Rtr::read};
  }
  return build(replyKey, (enhanced ? enhancedFlag : 0) | (agreement.crc ? crcFlag : 0), request.header.revision, enhanced,
               terms.privateData);
}

std::vector<std::byte> buildMpaReject(const MpaHeader& request) {
  const bool enhanced = request.enhanced && request.revision >= 2;
  return build(replyKey, rejectFlag | (request.crc ? crcFlag : 0) | (enhanced ? enhancedFlag : 0), request.revision,
               enhanced ? std::optional(MpaEnhanced{}) : std::nullopt, {});
}

}  // namespace iserfs::rdma::iwarp
