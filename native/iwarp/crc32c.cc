#include "crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define ISERFS_CRC32C_INSTRUCTION __attribute__((target("sse4.2")))
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define ISERFS_CRC32C_INSTRUCTION __attribute__((target("+crc")))
#endif

namespace iserfs::rdma::iwarp {

namespace {

/** 0x1EDC6F41 with its bits reversed. */
constexpr std::uint32_t polynomial = 0x82f63b78;

using Table = std::array<std::uint32_t, 256>;

/** `tables[k][b]`: what byte `b` followed by `k` zero bytes does to an empty state. */
constexpr std::array<Table, 8> makeTables() {
  std::array<Table, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? polynomial : 0);
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < tables.size(); ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr std::array<Table, 8> tables = makeTables();

}  // namespace

std::uint32_t crc32cUpdateByTable(std::uint32_t state, const std::byte* data, std::size_t length) noexcept {
  const auto at = [&data](std::size_t i) { return std::to_integer<std::uint32_t>(data[i]); };
  while (length >= 8) {
    const std::uint32_t low = state ^ (at(0) | (at(1) << 8) | (at(2) << 16) | (at(3) << 24));
    state = tables[7][low & 0xff] ^ tables[6][(low >> 8) & 0xff] ^ tables[5][(low >> 16) & 0xff] ^ tables[4][low >> 24] ^
            tables[3][at(4)] ^ tables[2][at(5)] ^ tables[1][at(6)] ^ tables[0][at(7)];
    data += 8;
    length -= 8;
  }
  for (; length > 0; --length, ++data) state = (state >> 8) ^ tables[0][(state ^ at(0)) & 0xff];
  return state;
}

#ifdef ISERFS_CRC32C_INSTRUCTION

namespace {

/** Appends a fixed number of zero bytes to a state: the operation is linear, so four look-ups do it. */
class ZeroAppender {
 public:
  explicit ZeroAppender(std::size_t zeros) {
    std::array<std::uint32_t, 32> column{};
    for (std::size_t bit = 0; bit < column.size(); ++bit) {
      std::uint32_t state = std::uint32_t{1} << bit;
      for (std::size_t i = 0; i < zeros; ++i) state = (state >> 8) ^ tables[0][state & 0xff];
      column[bit] = state;
    }
    for (std::size_t part = 0; part < 4; ++part) {
      for (std::size_t byte = 0; byte < 256; ++byte) {
        std::uint32_t sum = 0;
        for (std::size_t bit = 0; bit < 8; ++bit) sum ^= (byte >> bit & 1) != 0 ? column[part * 8 + bit] : 0;
        parts_[part][byte] = sum;
      }
    }
  }

  std::uint32_t operator()(std::uint32_t state) const noexcept {
    return parts_[0][state & 0xff] ^ parts_[1][(state >> 8) & 0xff] ^ parts_[2][(state >> 16) & 0xff] ^ parts_[3][state >> 24];
  }

 private:
  std::array<Table, 4> parts_{};
};

/** Lengths of a stream. Three long ones are within any first-level cache; three short ones pay from 768 bytes. */
constexpr std::size_t longStream = 4096;
constexpr std::size_t shortStream = 256;
constexpr std::size_t cacheLine = 64;

inline std::uint64_t load64(const std::byte* from) noexcept {
  std::uint64_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

ISERFS_CRC32C_INSTRUCTION inline std::uint32_t step64(std::uint32_t state, std::uint64_t value) noexcept {
#if defined(__x86_64__)
  return static_cast<std::uint32_t>(_mm_crc32_u64(state, value));
#else
  return __crc32cd(state, value);
#endif
}

ISERFS_CRC32C_INSTRUCTION inline std::uint32_t step8(std::uint32_t state, std::byte value) noexcept {
#if defined(__x86_64__)
  return _mm_crc32_u8(state, std::to_integer<unsigned char>(value));
#else
  return __crc32cb(state, std::to_integer<std::uint8_t>(value));
#endif
}

/**
 * Consumes as many triples of streams as there are, each `stream` bytes long, a multiple of a cache line. What it works on has seldom been
 * read before, and a processor does not look ahead beyond a page: the next triple is asked for meanwhile.
 */
ISERFS_CRC32C_INSTRUCTION std::uint32_t updateTriples(std::uint32_t state, const std::byte*& data, std::size_t& length,
                                                      std::size_t stream, const ZeroAppender& appendZeros) noexcept {
  while (length >= 3 * stream) {
    std::uint32_t first = state;
    std::uint32_t second = 0;
    std::uint32_t third = 0;
    const bool hasNext = length >= 6 * stream;
    for (std::size_t line = 0; line < stream; line += cacheLine) {
      if (hasNext) {
        const std::byte* next = data + 3 * stream + line;
        __builtin_prefetch(next);
        __builtin_prefetch(next + stream);
        __builtin_prefetch(next + 2 * stream);
      }
      for (std::size_t i = line; i < line + cacheLine; i += 8) {
        first = step64(first, load64(data + i));
        second = step64(second, load64(data + stream + i));
        third = step64(third, load64(data + 2 * stream + i));
      }
    }
    state = appendZeros(appendZeros(first) ^ second) ^ third;
    data += 3 * stream;
    length -= 3 * stream;
  }
  return state;
}

ISERFS_CRC32C_INSTRUCTION std::uint32_t updateByInstruction(std::uint32_t state, const std::byte* data,
                                                            std::size_t length) noexcept {
  static const ZeroAppender appendLong(longStream);
  static const ZeroAppender appendShort(shortStream);
  state = updateTriples(state, data, length, longStream, appendLong);
  state = updateTriples(state, data, length, shortStream, appendShort);
  for (; length >= 8; length -= 8, data += 8) state = step64(state, load64(data));
  for (; length > 0; --length, ++data) state = step8(state, *data);
  return state;
}

bool hasInstruction() noexcept {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2") != 0;
#else
  return (::getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
}

}  // namespace

#endif

namespace {

using Update = std::uint32_t (*)(std::uint32_t, const std::byte*, std::size_t) noexcept;

Update choose() noexcept {
#ifdef ISERFS_CRC32C_INSTRUCTION
  if (hasInstruction()) return updateByInstruction;
#endif
  return crc32cUpdateByTable;
}

Update chosen() noexcept {
  static const Update update = choose();
  return update;
}

}  // namespace

std::uint32_t crc32cUpdate(std::uint32_t state, const std::byte* data, std::size_t length) noexcept {
  return chosen()(state, data, length);
}

const char* crc32cMethod() noexcept {
  if (chosen() == crc32cUpdateByTable) return "tables";
#if defined(__x86_64__)
  return "SSE4.2";
#else
  return "ARMv8";
#endif
}

}  // namespace iserfs::rdma::iwarp
