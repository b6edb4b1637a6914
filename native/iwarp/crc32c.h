/**
 * CRC32C (Castagnoli), as MPA puts it behind every FPDU. The fastest way that the processor has is chosen once, at run time: SSE4.2
 * or the ARMv8 CRC instructions, three streams at a time because an instruction takes three cycles and one can start in each; else
 * tables. It knows nothing of frames.
 */
#pragma once

#include <cstddef>
#include <cstdint>

namespace iserfs::rdma::iwarp {

/** What a computation begins with. The checksum is the complement of what it ends with. */
inline constexpr std::uint32_t crc32cStart = 0xffffffff;

/** The state after `length` more bytes. Any thread. */
std::uint32_t crc32cUpdate(std::uint32_t state, const std::byte* data, std::size_t length) noexcept;

/** The same by tables alone: what processors without an instruction get, and what the other is tested against. Any thread. */
std::uint32_t crc32cUpdateByTable(std::uint32_t state, const std::byte* data, std::size_t length) noexcept;

/** `SSE4.2`, `ARMv8` or `tables`. Any thread. */
const char* crc32cMethod() noexcept;

}  // namespace iserfs::rdma::iwarp
