/** Memory that is lent to providers. */
#include "arena.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <new>
#include <vector>

#include "support.h"

namespace iserfs::test {

TEST_SUITE_BEGIN("arena");

TEST_CASE("an arena is zeroed, page-aligned, as long as asked for, and has a number of its own") {
  const auto first = Arena::allocate(10'000);
  const auto second = Arena::allocate(1);
  CHECK(first->length() == 10'000);
  CHECK(second->length() == 1);
  CHECK(reinterpret_cast<std::uintptr_t>(first->data()) % 4096 == 0);
  CHECK(isFilledWith({first, 0, 10'000}, std::byte{0}));
  CHECK(first->id() != 0);
  CHECK(second->id() > first->id());
}

TEST_CASE("an arena of whole huge pages begins with one") {
  constexpr std::size_t hugePage = 2 * 1024 * 1024;
  for (const auto length : {hugePage, 3 * hugePage}) {
    const auto arena = Arena::allocate(length);
    CHECK(reinterpret_cast<std::uintptr_t>(arena->data()) % hugePage == 0);
    CHECK(isFilledWith({arena, 0, static_cast<std::uint32_t>(length)}, std::byte{0}));
  }
}

TEST_CASE("arenas of whole huge pages are one mapping where they are one after the other") {
  const auto mappings = [] {
    std::ifstream maps("/proc/self/maps");
    return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
  };
  constexpr std::size_t hugePage = 2 * 1024 * 1024;
  const auto before = mappings();
  std::vector<std::shared_ptr<Arena>> arenas;
  for (int i = 0; i < 100; i++) arenas.push_back(Arena::allocate(hugePage));
  CHECK(mappings() - before < 50);
}

TEST_CASE("lengths that no arena has are refused") {
  CHECK_THROWS_AS(Arena::allocate(0), std::bad_alloc);
  CHECK_THROWS_AS(Arena::allocate(SIZE_MAX), std::bad_alloc);
  CHECK_THROWS_AS(Arena::allocate(std::size_t{UINT32_MAX} + 1), std::bad_alloc);
}

TEST_SUITE_END();

}  // namespace iserfs::test
