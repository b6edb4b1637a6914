/** The unit tests of the native code. Each file tests what its name says; doctest finds and runs them. */
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "fake_fusermount.h"

int main(int count, char** words) {
  if (iserfs::test::isFakeFusermount(words[0])) iserfs::test::beFakeFusermount(words);
  doctest::Context context(count, words);
  return context.run();
}
