/** Memory that is lent to providers. */
#include "arena.h"

#include <doctest/doctest.h>

#include <new>

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

TEST_CASE("lengths that no arena has are refused") {
  CHECK_THROWS_AS(Arena::allocate(0), std::bad_alloc);
  CHECK_THROWS_AS(Arena::allocate(SIZE_MAX), std::bad_alloc);
  CHECK_THROWS_AS(Arena::allocate(std::size_t{UINT32_MAX} + 1), std::bad_alloc);
}

TEST_SUITE_END();

}  // namespace iserfs::test
