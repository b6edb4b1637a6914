/** A small RLIMIT_MEMLOCK, for a process without the privilege to exceed it: what fails says so. */
#include <doctest/doctest.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <system_error>

#include "endpoint.h"

namespace iserfs::rdma::test {

namespace {

/** While it lives, this thread may lock as little memory as an unprivileged user. */
class SmallLimit {
 public:
  SmallLimit() {
    REQUIRE(::getrlimit(RLIMIT_MEMLOCK, &limit_) == 0);
    const rlimit small{1 << 20, limit_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_MEMLOCK, &small) == 0);
    REQUIRE(::syscall(SYS_capget, &header_, data_) == 0);
    lockBit(false);
  }
  SmallLimit(const SmallLimit&) = delete;
  SmallLimit& operator=(const SmallLimit&) = delete;
  ~SmallLimit() {
    lockBit(true);
    ::setrlimit(RLIMIT_MEMLOCK, &limit_);
  }

 private:
  void lockBit(bool on) {
    const auto bit = 1U << CAP_IPC_LOCK;
    data_[0].effective = on ? data_[0].effective | bit : data_[0].effective & ~bit;
    REQUIRE(::syscall(SYS_capset, &header_, data_) == 0);
  }

  rlimit limit_{};
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data_[2]{};
};

}  // namespace

TEST_CASE("memory that must not be locked cannot be advertised, and the error names the limit") {
  REQUIRE_DEVICE();
  PairOptions options;
  options.arenaLength = 8 << 20;
  Pair pair(options);
  const SmallLimit limit;
  try {
    static_cast<void>(pair.initiator->queuePair->advertise(pair.initiator->segment(0, 8 << 20), Access::remoteWrite));
    FAIL("advertised");
  } catch (const std::system_error& error) {
    MESSAGE(std::string(error.what()));
    CHECK(error.code() == std::errc::not_enough_memory);
    CHECK(std::string(error.what()).find("RLIMIT_MEMLOCK") != std::string::npos);
    CHECK(std::string(error.what()).find("1024 KiB") != std::string::npos);
  }
}

TEST_CASE("a request with memory that must not be locked fails, and the connection ends with the reason") {
  REQUIRE_DEVICE();
  PairOptions options;
  options.arenaLength = 8 << 20;
  Pair pair(options);
  const SmallLimit limit;
  pair.initiator->queuePair->postReceive(1, pair.initiator->segment(0, 4096));
  CHECK(pair.initiator->waitCompleted(Opcode::receive, 1).status == Status::failed);
  const auto failure = pair.initiator->waitClosed();
  MESSAGE(failure.text);
  CHECK(failure.code == FailureCode::resources);
  CHECK(failure.text.find("RLIMIT_MEMLOCK") != std::string::npos);
}

}  // namespace iserfs::rdma::test
