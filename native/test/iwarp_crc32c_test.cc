/** CRC32C against the examples of RFC 3720 B.4, and the instruction against the tables and a definition bit by bit. */
#include "iwarp/crc32c.h"

#include <doctest/doctest.h>

#include "support.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

namespace {

std::uint32_t checksum(std::span<const std::byte> bytes) { return ~crc32cUpdate(crc32cStart, bytes.data(), bytes.size()); }

std::uint32_t bitByBit(std::uint32_t state, std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) {
    state ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0x82f63b78 : 0);
  }
  return state;
}

}  // namespace

TEST_SUITE_BEGIN("crc32c");

TEST_CASE("the examples of RFC 3720 B.4 come out as printed there") {
  std::vector<std::byte> bytes(32);
  CHECK(checksum(bytes) == 0x8a9136aa);
  std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
  CHECK(checksum(bytes) == 0x62a8ab43);
  for (unsigned i = 0; i < 32; ++i) bytes[i] = static_cast<std::byte>(i);
  CHECK(checksum(bytes) == 0x46dd794e);
  for (unsigned i = 0; i < 32; ++i) bytes[i] = static_cast<std::byte>(31 - i);
  CHECK(checksum(bytes) == 0x113fdb5c);
  CHECK(checksum(bytesOf("01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018"
                         "28000000 00000000 02000000 00000000")) == 0xd9963a56);
}

TEST_CASE("instruction, tables and definition agree at every length and alignment") {
  const Segment all = memory(40'000);
  fillPattern(all, 77);
  std::vector<std::uint32_t> lengths;
  for (std::uint32_t length = 0; length < 100; ++length) lengths.push_back(length);
  for (const std::uint32_t length : {255U, 256U, 767U, 768U, 769U, 1537U, 4095U, 12'287U, 12'288U, 12'289U, 13'063U, 37'001U}) {
    lengths.push_back(length);
  }
  for (const std::uint32_t length : lengths) {
    for (const std::uint32_t offset : {0U, 1U, 7U}) {
      const std::span<const std::byte> bytes(all.data() + offset, length);
      const std::uint32_t state = 0x12345678 + length;
      const std::uint32_t expected = bitByBit(state, bytes);
      CHECK(crc32cUpdate(state, bytes.data(), length) == expected);
      CHECK(crc32cUpdateByTable(state, bytes.data(), length) == expected);
    }
  }
}

TEST_CASE("a computation may be cut anywhere") {
  const Segment all = memory(3000);
  fillPattern(all, 5);
  const std::uint32_t whole = crc32cUpdate(crc32cStart, all.data(), all.length);
  for (std::uint32_t cut = 0; cut <= all.length; cut += 61) {
    const std::uint32_t first = crc32cUpdate(crc32cStart, all.data(), cut);
    CHECK(crc32cUpdate(first, all.data() + cut, all.length - cut) == whole);
  }
}

#if defined(__x86_64__)
TEST_CASE("the instruction is used where the processor has it") {
  CHECK(std::string(crc32cMethod()) == (__builtin_cpu_supports("sse4.2") ? "SSE4.2" : "tables"));
}
#endif

TEST_SUITE_END();

}  // namespace iserfs::test
