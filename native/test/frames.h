/** FPDUs for tests that play the peer, down to those that no peer should send. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "iwarp/rdmap.h"

namespace iserfs::test {

using Bytes = std::vector<std::byte>;

/** Length field, header, payload, pad and CRC; `payloadLength` is that of `payload`. */
Bytes frame(rdma::iwarp::SegmentHeader header, std::span<const std::byte> payload = {});
/** Any length field, header and payload: with pad and CRC. */
Bytes sealed(Bytes bytes);

Bytes sendFrame(std::uint32_t messageNumber, std::uint32_t offset, std::span<const std::byte> payload, bool last = true);
Bytes writeFrame(std::uint32_t tag, std::uint64_t address, std::span<const std::byte> payload, bool last = true);
Bytes responseFrame(std::uint32_t tag, std::uint64_t address, std::span<const std::byte> payload, bool last = true);
Bytes readRequestFrame(std::uint32_t messageNumber, const rdma::iwarp::ReadRequest& request);
Bytes operator+(Bytes first, const Bytes& second);

/** Pattern bytes as `fillPattern` makes them. */
Bytes patternBytes(std::uint32_t length, std::uint32_t seed);

}  // namespace iserfs::test
