/** Which pages are found, however they lie, come and go. */
#include "fuse/page_table.h"

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <random>
#include <vector>

namespace iserfs::test {

using namespace iserfs::fuse;

namespace {

constexpr std::uint64_t lastPage = (UINT64_C(1) << 52) - 1;

/** Nothing is read: an address and a length that are of this page and step alone. */
std::span<const std::byte> bytesOf(std::uint64_t page, std::size_t step) {
  static const std::vector<std::byte> memory(1 << 20);
  return {memory.data() + (page * 31 + step) % (memory.size() - pageLength), 1 + (page + step) % pageLength};
}

bool isAt(const PageTable& table, std::uint64_t page, std::span<const std::byte> bytes) {
  const auto found = table.find(page);
  return found.size() == bytes.size() && (bytes.empty() || found.data() == bytes.data());
}

}  // namespace

TEST_SUITE_BEGIN("fuse page table");

TEST_CASE("an empty table has nothing, and nothing is taken out of it") {
  PageTable table;
  CHECK(table.find(0).empty());
  table.erase(0, lastPage + 1);
  table.clear();
  CHECK(table.find(lastPage).empty());
}

TEST_CASE("pages are found by all of their number, with all of their length") {
  PageTable table;
  const std::array<std::uint64_t, 9> pages{0, 1, 7, 8, 4096, UINT64_C(1) << 32, (UINT64_C(1) << 32) + 1, lastPage - 4096, lastPage};
  for (const auto page : pages) CHECK_FALSE(table.set(page, bytesOf(page, 0)));
  for (const auto page : pages) CHECK(isAt(table, page, bytesOf(page, 0)));
  for (const std::size_t length : {std::size_t{1}, std::size_t{2}, pageLength - 1, pageLength}) {
    const std::span bytes(bytesOf(8, 3).data(), length);
    CHECK(table.set(8, bytes));
    CHECK(isAt(table, 8, bytes));
  }
  CHECK(table.find(2).empty());
  CHECK(table.find(lastPage - 1).empty());
  table.clear();
  for (const auto page : pages) CHECK(table.find(page).empty());
}

TEST_CASE("it is as a map is, while it grows and shrinks") {
  for (const std::uint32_t seed : {1U, 2U, 3U}) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const auto below = [&random](std::uint64_t end) { return random() % end; };
    PageTable table;
    std::map<std::uint64_t, std::span<const std::byte>> model;
    for (std::size_t step = 0; step < 20'000; step++) {
      const std::array<std::uint64_t, 4> kinds{below(64), below(1 << 20), (UINT64_C(1) << 33) + below(4096) * 8, lastPage - below(100)};
      const auto page = kinds[below(kinds.size())];
      if (step % 10'000 < 6000 && below(4) > 0) {
        const auto bytes = bytesOf(page, step);
        CHECK(table.set(page, bytes) == !model.insert_or_assign(page, bytes).second);
      } else {
        // One as a rule, then some, and now and then more than the table has places.
        const auto length = below(100) == 0 ? lastPage / 1000 * below(1000) : below(3) == 0 ? below(40) : 1;
        const auto first = model.empty() || below(2) == 0 ? page : model.begin()->first;
        const auto end = std::min(first + length, lastPage + 1);
        table.erase(first, end);
        model.erase(model.lower_bound(first), model.lower_bound(end));
      }
      const auto found = model.find(page);
      CHECK(isAt(table, page, found == model.end() ? std::span<const std::byte>() : found->second));
      if (step % 500 != 0) continue;
      bool areAllThere = true;
      for (const auto& [each, bytes] : model) areAllThere = areAllThere && isAt(table, each, bytes);
      CHECK(areAllThere);
      bool areOthersNot = true;
      for (std::uint64_t each = 0; each < 200; each++) areOthersNot = areOthersNot && (model.contains(each) || table.find(each).empty());
      CHECK(areOthersNot);
    }
  }
}

TEST_SUITE_END();

}  // namespace iserfs::test
