/** The unit tests of the native code. Each file tests what its name says; doctest finds and runs them. */
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
