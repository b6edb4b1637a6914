/** What tags let the peer reach, and for how long. */
#include "iwarp/stag_table.h"

#include <doctest/doctest.h>

#include <set>
#include <stdexcept>

#include "support.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

TEST_SUITE_BEGIN("stag table");

TEST_CASE("exactly the segment may be reached, in the way that was advertised") {
  StagTable table(4, 1234);
  const Segment whole = memory(10'000);
  const Segment segment = part(whole, 100, 5000);
  const std::uint32_t tag = table.insert(segment, TagRight::remoteWrite);
  const std::uint64_t base = table.addressOf(tag);
  const auto found = table.check(tag, base + 10, 4990, TagRight::remoteWrite);
  CHECK(found.fault == TagFault::none);
  CHECK(found.offset == 10);
  CHECK(found.entry->segment.data() == whole.data() + 100);
  CHECK(table.check(tag, base, 5000, TagRight::remoteWrite).fault == TagFault::none);
  CHECK(table.check(tag, base + 5000, 0, TagRight::remoteWrite).fault == TagFault::none);
  CHECK(table.check(tag, base, 5001, TagRight::remoteWrite).fault == TagFault::bounds);
  CHECK(table.check(tag, base + 1, 5000, TagRight::remoteWrite).fault == TagFault::bounds);
  CHECK(table.check(tag, base + 5000, 1, TagRight::remoteWrite).fault == TagFault::bounds);
  CHECK(table.check(tag, base - 1, 1, TagRight::remoteWrite).fault == TagFault::bounds);
  CHECK(table.check(tag, 0, 1, TagRight::remoteWrite).fault == TagFault::bounds);
  CHECK(table.check(tag, UINT64_MAX, 2, TagRight::remoteWrite).fault == TagFault::wrap);
  CHECK(table.check(tag, base, UINT32_MAX, TagRight::remoteWrite).fault == TagFault::bounds);
  CHECK(table.check(tag, base, 1, TagRight::remoteRead).fault == TagFault::access);
  CHECK(table.check(tag, base, 1, TagRight::readSink).fault == TagFault::access);
}

TEST_CASE("the address of one entry with the tag of another is out of bounds") {
  StagTable table(2, 99);
  const std::uint32_t first = table.insert(memory(4096), TagRight::remoteWrite);
  const std::uint32_t second = table.insert(memory(4096), TagRight::remoteWrite);
  CHECK(table.check(first, table.addressOf(second), 1, TagRight::remoteWrite).fault == TagFault::bounds);
  CHECK(table.check(second, table.addressOf(first), 1, TagRight::remoteWrite).fault == TagFault::bounds);
}

TEST_CASE("a tag that was taken back stays unknown although its slot is in use again") {
  StagTable table(1, 7);
  std::set<std::uint32_t> given;
  std::uint32_t tag = table.insert(memory(16), TagRight::remoteRead);
  for (int use = 0; use < 255; ++use) {
    CHECK(given.insert(tag).second);
    table.erase(tag);
    CHECK(table.find(tag) == nullptr);
    const std::uint32_t before = tag;
    tag = table.insert(memory(16), TagRight::remoteRead);
    CHECK(table.check(before, table.addressOf(tag), 1, TagRight::remoteRead).fault == TagFault::unknown);
    table.erase(before);
    CHECK(table.size() == 1);
  }
}

TEST_CASE("what is not in force is unknown, but can be found until it is erased") {
  StagTable table(1, 7);
  const std::uint32_t tag = table.insert(memory(16), TagRight::remoteRead);
  table.find(tag)->inForce = false;
  CHECK(table.check(tag, table.addressOf(tag), 1, TagRight::remoteRead).fault == TagFault::unknown);
  REQUIRE(table.find(tag) != nullptr);
}

TEST_CASE("no entry is given twice, no tag is 0, no address reaches 2^53") {
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{0xfffffe}, UINT64_MAX, std::uint64_t{0xffff00}}) {
    StagTable table(300, seed);
    std::set<std::uint32_t> tags;
    for (int i = 0; i < 300; ++i) {
      const std::uint32_t tag = table.insert(memory(1), TagRight::remoteWrite);
      CHECK(tag != 0);
      CHECK(tags.insert(tag).second);
      CHECK(table.addressOf(tag) + UINT32_MAX < (std::uint64_t{1} << 53));
    }
    CHECK_THROWS_AS(table.insert(memory(1), TagRight::remoteWrite), std::length_error);
    table.clear();
    CHECK(table.size() == 0);
    for (const std::uint32_t tag : tags) CHECK(table.find(tag) == nullptr);
  }
}

TEST_CASE("tables begin elsewhere with another seed") {
  StagTable one(8, 1);
  StagTable other(8, 0x123456789);
  CHECK(one.insert(memory(1), TagRight::remoteWrite) != other.insert(memory(1), TagRight::remoteWrite));
}

TEST_CASE("an entry keeps its memory, and lets it go when it is erased") {
  StagTable table(1, 3);
  Segment segment = memory(1);
  const std::weak_ptr<Arena> arena = segment.arena;
  const std::uint32_t tag = table.insert(segment, TagRight::remoteWrite);
  segment = Segment{};
  CHECK_FALSE(arena.expired());
  table.erase(tag);
  CHECK(arena.expired());
}

TEST_SUITE_END();

}  // namespace iserfs::test
