/**
 * MPA's connection set-up (RFC 5044 §7, RFC 6581): the request and reply frames that both ends exchange on a fresh TCP connection,
 * and what they agree on with them. Bytes in, bytes out: it knows neither sockets nor the ULP's private data.
 *
 * Markers are never used: this end asks for none and refuses a peer that wants them. CRCs are used as soon as one end asks.
 */
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace iserfs::rdma::iwarp {

inline constexpr std::size_t mpaHeaderLength = 20;
/** RFC 5044 §7.1: of the private data of a frame, the enhanced data included. */
inline constexpr std::size_t mpaMaxPrivateData = 512;
/** RFC 6581 §4: a depth that says "not negotiated". */
inline constexpr std::uint16_t mpaDepthUnknown = 0x3fff;

enum class MpaKind : std::uint8_t { request, reply };

/** The 20 bytes in front of the private data. */
struct MpaHeader {
  bool markers = false;
  bool crc = false;
  bool rejected = false;
  bool enhanced = false;
  std::uint8_t revision = 0;
  std::uint16_t privateDataLength = 0;
};

/** The first message after the set-up, by which an initiator that waits for no ULP says that it is ready (RFC 6581 §5). */
enum class Rtr : std::uint8_t { none, send, write, read };

/** The four bytes of an enhanced frame (RFC 6581 §4). */
struct MpaEnhanced {
  std::uint16_t ird = 0;
  std::uint16_t ord = 0;
  bool peerToPeer = false;
  bool rtrSend = false;
  bool rtrWrite = false;
  bool rtrRead = false;
};

/** A frame as it came. */
struct MpaFrame {
  MpaHeader header;
  std::optional<MpaEnhanced> enhanced;
  /** The ULP's. */
  std::vector<std::byte> privateData;
};

/** What an end wants: wishes of the initiator, or the responder's terms. */
struct MpaTerms {
  bool crc = true;
  std::uint16_t ird = 0;
  std::uint16_t ord = 0;
  std::span<const std::byte> privateData;
};

struct MpaAgreement {
  bool crc = false;
  /** RDMA Reads that the peer may have outstanding here. */
  std::uint16_t ird = 0;
  /** RDMA Reads that may be outstanding at the peer. */
  std::uint16_t ord = 0;
  /** Responder: what the initiator sends first. */
  Rtr rtr = Rtr::none;
};

/** Why there is no agreement. */
struct MpaFault {
  enum class Kind : std::uint8_t {
    /** The peer said no. */
    rejected,
    /** What came breaks MPA. */
    malformed,
    /** The responder wants more RDMA Reads than were granted: Terminate, MPA error 6. */
    insufficientIrd,
  };
  Kind kind = Kind::malformed;
  std::string text;
};

/** Which kind of frame it is, and how long its private data. */
std::variant<MpaHeader, MpaFault> parseMpaHeader(std::span<const std::byte, mpaHeaderLength> bytes, MpaKind kind);

/** `privateData`: as many bytes as the header says. */
std::variant<MpaFrame, MpaFault> parseMpaFrame(const MpaHeader& header, std::span<const std::byte> privateData);

/** An initiator's request: revision 2, enhanced, client and server (no RTR). */
std::vector<std::byte> buildMpaRequest(const MpaTerms& terms);

/** Initiator: what a reply to the request that `buildMpaRequest` made means. */
std::variant<MpaAgreement, MpaFault> settleMpaReply(const MpaTerms& offered, const MpaFrame& reply);

/** Responder: why this request must be rejected, if it must. */
std::optional<std::string> objectionToMpaRequest(const MpaFrame& request);

/** Responder: what is agreed by accepting on these terms. `terms.crc` has no say. */
MpaAgreement settleMpaRequest(const MpaFrame& request, const MpaTerms& terms);

/** Responder: the reply that says so. */
std::vector<std::byte> buildMpaReply(const MpaFrame& request, const MpaTerms& terms);

/** Responder: no. */
std::vector<std::byte> buildMpaReject(const MpaHeader& request);

}  // namespace iserfs::rdma::iwarp
