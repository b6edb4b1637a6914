/**
 * A small RLIMIT_MEMLOCK, for a process without the privilege to exceed it: what fails says so. In a process of its own, since the
 * kernel lets an RDMA device be used only with the privileges that it was opened with.
 */
#include <doctest/doctest.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "endpoint.h"

namespace iserfs::rdma::test {

namespace {

constexpr const char* childMark = "ISERFS_VERBS_SMALL_LIMIT";

/** May lock as little memory as an unprivileged user, from now on. */
void giveUpPrivilege() {
  const rlimit small{1 << 20, 1 << 20};
  REQUIRE(::setrlimit(RLIMIT_MEMLOCK, &small) == 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  REQUIRE(::syscall(SYS_capget, &header, data) == 0);
  data[0].effective &= ~(1U << CAP_IPC_LOCK);
  REQUIRE(::syscall(SYS_capset, &header, data) == 0);
}

/** With enough for the queues, but not for the data. */
PairOptions smallQueues() {
  PairOptions options;
  options.arenaLength = 8 << 20;
  for (auto* side : {&options.initiator, &options.target}) side->sendDepth = side->receiveDepth = side->advertisementDepth = 8;
  return options;
}

/** This test case again, in a process of its own; whether it passed there. */
bool passesInChild(const char* testCase) {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").string();
  const auto command = std::string(childMark) + "=1 '" + path + "' -tc='" + testCase + "'";
  return std::system(command.c_str()) == 0;
}

}  // namespace

TEST_CASE("memory that must not be locked cannot be advertised, and the error names the limit") {
  REQUIRE_DEVICE();
  if (std::getenv(childMark) == nullptr) {
    CHECK(passesInChild("memory that must not be locked*"));
    return;
  }
  giveUpPrivilege();
  Pair pair(smallQueues());
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
  if (std::getenv(childMark) == nullptr) {
    CHECK(passesInChild("a request with memory that must not be locked*"));
    return;
  }
  giveUpPrivilege();
  Pair pair(smallQueues());
  pair.initiator->queuePair->postReceive(1, pair.initiator->segment(0, 4096));
  CHECK(pair.initiator->waitCompleted(Opcode::receive, 1).status == Status::failed);
  const auto failure = pair.initiator->waitClosed();
  MESSAGE(failure.text);
  CHECK(failure.code == FailureCode::resources);
  CHECK(failure.text.find("RLIMIT_MEMLOCK") != std::string::npos);
}

}  // namespace iserfs::rdma::test
