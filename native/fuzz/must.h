/** What holds whatever the input is: where it does not, the fuzzer has found something. */
#pragma once

#include <cstdio>
#include <cstdlib>

#define MUST(condition)                                                             \
  do {                                                                              \
    if (!(condition)) {                                                             \
      std::fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);  \
      std::abort();                                                                 \
    }                                                                               \
  } while (false)
