/** What may be answered from memory, and that nobody reads it any more when it was taken back. */
#include "fuse/page_index.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support.h"

namespace iserfs::test {

using namespace iserfs::fuse;

namespace {

constexpr std::uint64_t inode = 7;
constexpr std::uint64_t block = 16 * pageLength;

/** The bytes of a read, or nothing where it is not in memory. */
std::optional<std::vector<std::byte>> bytesAt(PageIndex& pages, std::uint64_t offset, std::uint64_t length, std::size_t* pieceCount = nullptr) {
  PageIndex::Reading reading;
  std::vector<iovec> pieces;
  if (!pages.begin(inode, offset, length, pieces, reading)) {
    CHECK(pieces.empty());
    return std::nullopt;
  }
  std::vector<std::byte> bytes;
  for (const auto& piece : pieces) {
    const auto* start = static_cast<const std::byte*>(piece.iov_base);
    CHECK(piece.iov_len > 0);
    bytes.insert(bytes.end(), start, start + piece.iov_len);
  }
  if (pieceCount != nullptr) *pieceCount = pieces.size();
  return bytes;
}

bool isAt(PageIndex& pages, std::uint64_t offset, std::uint64_t length = 1) { return bytesAt(pages, offset, length).has_value(); }

Segment pattern(std::uint32_t length, std::uint32_t seed) {
  const auto segment = memory(length);
  fillPattern(segment, seed);
  return segment;
}

std::span<const std::byte> spanOf(const Segment& segment) { return {segment.data(), segment.length}; }

std::vector<std::byte> copyOf(const Segment& segment, std::size_t offset, std::size_t length) {
  return {segment.data() + offset, segment.data() + offset + length};
}

}  // namespace

TEST_SUITE_BEGIN("fuse page index");

TEST_CASE("nothing is known of an image whose size is not, or of which nothing was shown") {
  PageIndex pages;
  CHECK_FALSE(isAt(pages, 0));
  const auto memoryOf = pattern(pageLength, 1);
  pages.show(inode, 0, spanOf(memoryOf));
  CHECK_FALSE(isAt(pages, 0));
  pages.setSize(inode, block);
  CHECK(isAt(pages, 0));
  CHECK_FALSE(isAt(pages, pageLength));
  CHECK(pages.hits(inode) == 1);
  CHECK(pages.hits(inode + 1) == 0);
}

TEST_CASE("a read may begin and end within pages, and gets exactly its bytes, in one piece where they lie together") {
  PageIndex pages;
  constexpr std::uint32_t length = 40 * pageLength;
  const auto memoryOf = pattern(length, 2);
  pages.setSize(inode, 100 * block);
  pages.show(inode, 5 * pageLength, spanOf(memoryOf));
  for (const std::size_t from : {std::size_t{0}, std::size_t{1}, pageLength - 1, pageLength, 10 * pageLength + 7, 11 * pageLength - 1}) {
    for (const std::size_t count : {std::size_t{1}, std::size_t{2}, pageLength - 1, pageLength, pageLength + 1, 12 * pageLength + 3, 29 * pageLength}) {
      CAPTURE(from);
      CAPTURE(count);
      std::size_t pieceCount = 0;
      const auto found = bytesAt(pages, 5 * pageLength + from, count, &pieceCount);
      REQUIRE(found.has_value());
      CHECK(*found == copyOf(memoryOf, from, count));
      CHECK(pieceCount == 1);
    }
  }
  CHECK(isAt(pages, 5 * pageLength, length));
  CHECK_FALSE(isAt(pages, 5 * pageLength, length + 1));
  CHECK_FALSE(isAt(pages, 5 * pageLength - 1, 2));
  CHECK_FALSE(isAt(pages, 5 * pageLength - 1));
  CHECK_FALSE(isAt(pages, 45 * pageLength));
}

TEST_CASE("a read across memory that does not lie together gets a piece of each") {
  PageIndex pages;
  pages.setSize(inode, 100 * block);
  // The second and the third lie together, the first does not lie before them.
  const auto whole = pattern(50 * pageLength, 3);
  const auto first = part(whole, 36 * pageLength, 14 * pageLength);
  const auto second = part(whole, 0, 30 * pageLength);
  const auto third = part(whole, 30 * pageLength, 2 * pageLength);
  pages.show(inode, 44 * pageLength, spanOf(third));
  pages.show(inode, 0, spanOf(first));
  pages.show(inode, 14 * pageLength, spanOf(second));
  std::size_t pieceCount = 0;
  const auto found = bytesAt(pages, 100, 46 * pageLength - 200, &pieceCount);
  REQUIRE(found.has_value());
  CHECK(pieceCount == 2);
  auto expected = copyOf(first, 100, 14 * pageLength - 100);
  const auto middle = copyOf(second, 0, 30 * pageLength);
  const auto last = copyOf(third, 0, 2 * pageLength - 100);
  expected.insert(expected.end(), middle.begin(), middle.end());
  expected.insert(expected.end(), last.begin(), last.end());
  CHECK(*found == expected);
}

TEST_CASE("pieces are added to those that are there, and only where all is shown") {
  PageIndex pages;
  pages.setSize(inode, block);
  const auto memoryOf = pattern(2 * pageLength, 6);
  pages.show(inode, 0, spanOf(memoryOf));
  // It ends where the memory begins, and is none of this read.
  std::vector<iovec> pieces{{.iov_base = memoryOf.data(), .iov_len = 0}};
  {
    PageIndex::Reading reading;
    CHECK_FALSE(pages.begin(inode, 0, 3 * pageLength, pieces, reading));
    CHECK(pieces.size() == 1);
  }
  PageIndex::Reading reading;
  CHECK(pages.begin(inode, 0, 2 * pageLength, pieces, reading));
  CHECK(pieces.size() == 2);
  CHECK(pieces[1].iov_len == 2 * pageLength);
}

TEST_CASE("reads are cut at the end of the image, and none begin behind it") {
  PageIndex pages;
  constexpr std::uint32_t size = 2 * pageLength + 1536;
  const auto memoryOf = pattern(size, 7);
  pages.setSize(inode, size);
  pages.show(inode, 0, spanOf(memoryOf));
  CHECK(bytesAt(pages, pageLength, block) == copyOf(memoryOf, pageLength, size - pageLength));
  CHECK(bytesAt(pages, size - 1, UINT64_MAX) == copyOf(memoryOf, size - 1, 1));
  CHECK_FALSE(isAt(pages, size));
  CHECK_FALSE(isAt(pages, UINT64_MAX, UINT64_MAX));
  CHECK_FALSE(isAt(pages, 0, 0));
}

TEST_CASE("of a page that was shown in part nothing is read behind that part, whatever the size") {
  PageIndex pages;
  constexpr std::uint32_t length = 2 * pageLength + 904;
  const auto memoryOf = pattern(length, 15);
  pages.show(inode, 0, spanOf(memoryOf));
  pages.setSize(inode, 3 * pageLength);
  CHECK(bytesAt(pages, pageLength, pageLength + 904) == copyOf(memoryOf, pageLength, pageLength + 904));
  CHECK(bytesAt(pages, length - 1, 1) == copyOf(memoryOf, length - 1, 1));
  CHECK_FALSE(isAt(pages, length - 1, 2));
  CHECK_FALSE(isAt(pages, length));
  CHECK_FALSE(isAt(pages, pageLength, 2 * pageLength));
  // Nor where the next page is shown, which lies elsewhere.
  const auto next = pattern(pageLength, 16);
  pages.setSize(inode, block);
  pages.show(inode, 0, spanOf(memoryOf));
  pages.show(inode, 3 * pageLength, spanOf(next));
  CHECK_FALSE(isAt(pages, 2 * pageLength, 2 * pageLength));
  CHECK(isAt(pages, 3 * pageLength));
  // The rest of it may come, and go.
  const auto last = pattern(pageLength, 17);
  pages.show(inode, 2 * pageLength, spanOf(last));
  auto expected = copyOf(last, 900, pageLength - 900);
  const auto behind = copyOf(next, 0, 900);
  expected.insert(expected.end(), behind.begin(), behind.end());
  CHECK(bytesAt(pages, 2 * pageLength + 900, pageLength) == expected);
  pages.show(inode, 2 * pageLength, {last.data(), 10});
  CHECK_FALSE(isAt(pages, 2 * pageLength + 10));
  CHECK(isAt(pages, 2 * pageLength, 10));
}

TEST_CASE("what was shown is forgotten when the size changes, and only then") {
  PageIndex pages;
  const auto memoryOf = pattern(2 * pageLength, 8);
  pages.setSize(inode, 3 * pageLength);
  pages.show(inode, 0, spanOf(memoryOf));
  pages.setSize(inode, 3 * pageLength);
  CHECK(isAt(pages, 0));
  for (const std::uint64_t size : {std::uint64_t{4 * pageLength}, std::uint64_t{pageLength}, std::uint64_t{0}, std::uint64_t{4 * pageLength}}) {
    pages.setSize(inode, size);
    CHECK_FALSE(isAt(pages, 0));
  }
  pages.show(inode, 0, spanOf(memoryOf));
  CHECK(isAt(pages, 0, 2 * pageLength));
}

TEST_CASE("hiding takes every page that the range touches, and no other") {
  PageIndex pages;
  pages.setSize(inode, 100 * block);
  const auto memoryOf = pattern(64 * pageLength, 9);
  const auto isHidden = [&pages](std::uint64_t page) { return !isAt(pages, page * pageLength, pageLength); };
  struct Case {
    std::uint64_t offset, length, first, end;
  };
  for (const auto& [offset, length, first, end] : {
           Case{0, 0, 0, 0},
           Case{10, 0, 0, 0},
           Case{0, 1, 0, 1},
           Case{pageLength - 1, 2, 0, 2},
           Case{3 * pageLength, pageLength, 3, 4},
           Case{15 * pageLength + 1, pageLength, 15, 17},
           Case{10 * pageLength, 40 * pageLength, 10, 50},
           Case{block, block, 16, 32},
           Case{60 * pageLength, UINT64_MAX, 60, 64},
           Case{0, UINT64_MAX, 0, 64},
           Case{UINT64_MAX, UINT64_MAX, 64, 64},
           Case{64 * pageLength, 1000 * block, 64, 64},
       }) {
    CAPTURE(offset);
    CAPTURE(length);
    pages.show(inode, 0, spanOf(memoryOf));
    pages.hide(inode, offset, length);
    for (std::uint64_t page = 0; page < 64; ++page) CHECK(isHidden(page) == (page >= first && page < end));
  }
  pages.hide(inode + 1, 0, UINT64_MAX);
}

TEST_CASE("what is shown in the place of something else is read from then on") {
  PageIndex pages;
  pages.setSize(inode, block);
  const auto before = pattern(4 * pageLength, 10);
  const auto after = pattern(pageLength, 11);
  pages.show(inode, 0, spanOf(before));
  pages.show(inode, pageLength, spanOf(after));
  CHECK(bytesAt(pages, 0, pageLength) == copyOf(before, 0, pageLength));
  CHECK(bytesAt(pages, pageLength, pageLength) == copyOf(after, 0, pageLength));
  CHECK(bytesAt(pages, 2 * pageLength, 2 * pageLength) == copyOf(before, 2 * pageLength, 2 * pageLength));
  // Hidden once, as it is there once.
  pages.hide(inode, pageLength, pageLength);
  CHECK_FALSE(isAt(pages, pageLength));
  CHECK(isAt(pages, 0));
}

TEST_CASE("images are kept apart") {
  PageIndex pages;
  const auto one = pattern(pageLength, 12);
  pages.setSize(inode, pageLength);
  pages.setSize(inode + 1, pageLength);
  pages.show(inode, 0, spanOf(one));
  pages.show(inode + 1, 0, spanOf(one));
  pages.hide(inode + 1, 0, pageLength);
  CHECK(isAt(pages, 0));
  pages.drop(inode + 1);
  CHECK(isAt(pages, 0));
}

TEST_CASE("of an image that was dropped nothing is left") {
  PageIndex pages;
  const auto memoryOf = pattern(pageLength, 13);
  pages.setSize(inode, pageLength);
  pages.show(inode, 0, spanOf(memoryOf));
  CHECK(isAt(pages, 0));
  pages.drop(inode);
  pages.drop(inode);
  CHECK_FALSE(isAt(pages, 0));
  CHECK(pages.hits(inode) == 0);
  std::array<double, 4> offsets{};
  CHECK(pages.takeHits(inode, offsets) == 0);
  pages.setSize(inode, pageLength);
  CHECK_FALSE(isAt(pages, 0));
}

TEST_CASE("hits are counted, and their offsets given once, the newest where there is no room for all") {
  PageIndex pages;
  constexpr std::uint32_t length = 64 * pageLength;
  const auto memoryOf = pattern(length, 14);
  pages.setSize(inode, 100 * block);
  pages.show(inode, 0, spanOf(memoryOf));
  std::array<double, 2000> offsets{};
  CHECK(pages.takeHits(inode, offsets) == 0);
  for (const std::uint64_t offset : {9U, 8U, 7U, 6U}) CHECK(isAt(pages, offset));
  CHECK_FALSE(isAt(pages, length));
  CHECK(pages.hits(inode) == 4);
  CHECK(pages.takeHits(inode, std::span(offsets).first(3)) == 3);
  CHECK(std::vector<double>(offsets.begin(), offsets.begin() + 3) == std::vector<double>{8, 7, 6});
  CHECK(pages.takeHits(inode, offsets) == 0);
  CHECK(pages.hits(inode) == 4);
  for (std::uint64_t offset = 0; offset < 1500; ++offset) CHECK(isAt(pages, offset));
  CHECK(pages.takeHits(inode, offsets) == 1024);
  bool isInOrder = true;
  for (std::size_t i = 0; i < 1024; ++i) isInOrder = isInOrder && offsets[i] == static_cast<double>(1500 - 1024 + i);
  CHECK(isInOrder);
  for (std::uint64_t offset = 0; offset < 1030; ++offset) CHECK(isAt(pages, offset));
  CHECK(pages.takeHits(inode, std::span(offsets).first(10)) == 10);
  CHECK(offsets[0] == 1020);
  CHECK(offsets[9] == 1029);
  CHECK(isAt(pages, 3));
  CHECK(pages.takeHits(inode, std::span(offsets).first(0)) == 0);
  CHECK(pages.takeHits(inode, offsets) == 0);
}

TEST_CASE("who hides, replaces or drops waits for who reads, and only for who reads that") {
  struct Case {
    const char* what;
    std::function<void(PageIndex&, std::span<const std::byte>)> act;
    std::function<bool(PageIndex&)> hasBegun;
  };
  const auto isGone = [](PageIndex& pages) { return !isAt(pages, pageLength); };
  const Case cases[] = {
      {"hide", [](PageIndex& pages, auto) { pages.hide(inode, 2 * pageLength - 1, 1); }, isGone},
      {"drop", [](PageIndex& pages, auto) { pages.drop(inode); }, isGone},
      {"show", [](PageIndex& pages, auto other) { pages.show(inode, pageLength, other); },
       [](PageIndex& pages) { return bytesAt(pages, pageLength, 1)->front() == std::byte{0}; }},
  };
  for (const auto& [what, act, hasBegun] : cases) {
    CAPTURE(std::string(what));
    PageIndex pages;
    const auto memoryOf = memory(4 * pageLength);
    std::memset(memoryOf.data(), 0x77, memoryOf.length);
    const auto other = memory(pageLength);
    pages.setSize(inode, block);
    pages.show(inode, 0, spanOf(memoryOf));
    PageIndex::Reading reading;
    std::vector<iovec> pieces;
    REQUIRE(pages.begin(inode, pageLength + 50, 10, pieces, reading));
    // The pages beside it, and another image.
    pages.hide(inode, 0, pageLength);
    pages.hide(inode, 2 * pageLength, UINT64_MAX);
    pages.hide(inode + 1, 0, UINT64_MAX);
    pages.drop(inode + 1);
    std::atomic<bool> isOver{false};
    std::thread hider([&] {
      act(pages, spanOf(other));
      isOver = true;
    });
    CHECK(eventually([&] { return hasBegun(pages); }));
    CHECK_FALSE(isOver);
    CHECK(*static_cast<const std::byte*>(pieces[0].iov_base) == std::byte{0x77});
    reading.end();
    hider.join();
    CHECK(isOver);
    reading.end();
  }
}

TEST_CASE("readers never see what becomes of memory after it was hidden") {
  constexpr std::uint32_t pageCount = 24;
  constexpr std::uint32_t length = pageCount * pageLength;
  constexpr int rounds = 300;
  PageIndex pages;
  pages.setSize(inode, length);
  const auto memoryOf = memory(length);
  const auto fill = [&memoryOf](int value) { std::memset(memoryOf.data(), value, length); };
  std::atomic<bool> isOver{false};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> readers;
  for (std::uint32_t reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&, reader] {
      std::vector<iovec> pieces;
      for (std::uint32_t turn = reader; !isOver; turn = (turn + 5) % pageCount) {
        PageIndex::Reading reading;
        pieces.clear();
        if (!pages.begin(inode, turn * pageLength + 1000, 3 * pageLength, pieces, reading)) {
          std::this_thread::yield();
          continue;
        }
        for (const auto& piece : pieces) {
          // 1 to 100 is data; anything else is what somebody wrote over it.
          for (std::size_t at = 0; at < piece.iov_len; at += 512) {
            const auto value = static_cast<const std::uint8_t*>(piece.iov_base)[at];
            if (value == 0 || value > 100) ++wrong;
          }
        }
      }
    });
  }
  bool areHitsSeen = true;
  for (int round = 0; round < rounds; ++round) {
    fill(1 + round % 100);
    pages.show(inode, 0, spanOf(memoryOf));
    // In every other round somebody is in the middle of it.
    const auto hitsBefore = pages.hits(inode);
    if (round % 2 == 0) areHitsSeen = areHitsSeen && eventually([&] { return pages.hits(inode) != hitsBefore; });
    pages.hide(inode, 0, length);
    fill(0xee);
  }
  isOver = true;
  for (auto& reader : readers) reader.join();
  CHECK(areHitsSeen);
  CHECK(wrong == 0);
}

TEST_SUITE_END();

}  // namespace iserfs::test
