/**
 * Numbers in the byte order of the wire. MPA, DDP and RDMAP are big-endian, but for the CRC field, which goes out little-endian.
 * Callers have checked the length.
 */
#pragma once

#include <cstddef>
#include <cstdint>

namespace iserfs::rdma::iwarp {

inline std::uint16_t loadBe16(const std::byte* from) noexcept {
  return static_cast<std::uint16_t>((std::to_integer<unsigned>(from[0]) << 8) | std::to_integer<unsigned>(from[1]));
}

inline std::uint32_t loadBe32(const std::byte* from) noexcept {
  return (std::uint32_t{loadBe16(from)} << 16) | loadBe16(from + 2);
}

inline std::uint64_t loadBe64(const std::byte* from) noexcept {
  return (std::uint64_t{loadBe32(from)} << 32) | loadBe32(from + 4);
}

inline std::uint32_t loadLe32(const std::byte* from) noexcept {
  return std::to_integer<std::uint32_t>(from[0]) | (std::to_integer<std::uint32_t>(from[1]) << 8) |
         (std::to_integer<std::uint32_t>(from[2]) << 16) | (std::to_integer<std::uint32_t>(from[3]) << 24);
}

inline void storeBe16(std::byte* to, std::uint16_t value) noexcept {
  to[0] = static_cast<std::byte>(value >> 8);
  to[1] = static_cast<std::byte>(value & 0xff);
}

inline void storeBe32(std::byte* to, std::uint32_t value) noexcept {
  storeBe16(to, static_cast<std::uint16_t>(value >> 16));
  storeBe16(to + 2, static_cast<std::uint16_t>(value & 0xffff));
}

inline void storeBe64(std::byte* to, std::uint64_t value) noexcept {
  storeBe32(to, static_cast<std::uint32_t>(value >> 32));
  storeBe32(to + 4, static_cast<std::uint32_t>(value & 0xffffffff));
}

inline void storeLe32(std::byte* to, std::uint32_t value) noexcept {
  for (unsigned i = 0; i < 4; ++i) to[i] = static_cast<std::byte>((value >> (8 * i)) & 0xff);
}

}  // namespace iserfs::rdma::iwarp
