/** How a mount is asked for: what fusermount3 is told, and what becomes of what it sends and says. Nothing is mounted. */
#include "fuse/mounting.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "fake_fusermount.h"
#include "fuse/kernel.h"

namespace iserfs::test {

using namespace iserfs::fuse;

namespace {

MountOptions options() {
  return {.mountpoint = "/mnt/of user", .source = "iserfs", .subtype = "iserfs", .allowOther = false, .readOnly = false, .viaHelper = true};
}

/** The message, or nothing where it mounts. */
std::string failureOf(const MountOptions& wanted) {
  try {
    mount(wanted);
  } catch (const MountError& error) {
    return error.what();
  }
  return "";
}

/** Nobody waits for a helper that has ended. */
bool hasChildren() { return ::waitpid(-1, nullptr, WNOHANG) >= 0 || errno != ECHILD; }

bool isSameFile(const Descriptor& descriptor, const std::filesystem::path& path) {
  struct stat one {};
  struct stat other {};
  return ::fstat(descriptor.get(), &one) == 0 && ::stat(path.c_str(), &other) == 0 && one.st_ino == other.st_ino && one.st_dev == other.st_dev;
}

/** Of this process; the one that looks at them included, each time. */
long openDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

long countOf(const std::vector<std::string>& lines, const std::string& start) {
  return std::count_if(lines.begin(), lines.end(), [&](const std::string& line) { return line.starts_with(start); });
}

}  // namespace

TEST_SUITE_BEGIN("fuse mounting");

TEST_CASE("the descriptor that the helper sends does not block, and children do not inherit it") {
  for (const auto conduct : {HelperConduct::sendsDescriptor, HelperConduct::complainsAndSends, HelperConduct::complainsAtLengthAndSends}) {
    const FakeFusermount helper(conduct);
    const Descriptor descriptor = mount(options());
    CHECK(isSameFile(descriptor, helper.sentFile()));
    CHECK((::fcntl(descriptor.get(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(descriptor.get(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_FALSE(hasChildren());
  }
}

TEST_CASE("of two descriptors in one message the first is the device, and the other does not stay open") {
  const FakeFusermount helper(HelperConduct::sendsTwoDescriptors);
  const auto before = openDescriptors();
  const Descriptor descriptor = mount(options());
  CHECK(isSameFile(descriptor, helper.sentFile()));
  CHECK(openDescriptors() == before + 1);
}

TEST_CASE("the helper is told what to mount where, a comma and a backslash not ending an option") {
  const std::string terms = "default_permissions,max_read=" + std::to_string(maxTransfer);
  const FakeFusermount helper(HelperConduct::sendsDescriptor);
  mount(options());
  CHECK(helper.words() == std::vector<std::string>{"-o", "nosuid,nodev,fsname=iserfs,subtype=iserfs," + terms, "--", "/mnt/of user"});
  auto all = options();
  all.mountpoint = "-o";
  all.source = R"(a,b\c)";
  all.subtype = "other";
  all.allowOther = true;
  all.readOnly = true;
  mount(all);
  CHECK(helper.words() == std::vector<std::string>{"-o", R"(nosuid,nodev,fsname=a\,b\\c,subtype=other,)" + terms + ",allow_other,ro", "--", "-o"});
}

TEST_CASE("the helper speaks English, knows where to send the descriptor, and reads nothing") {
  const FakeFusermount helper(HelperConduct::sendsDescriptor);
  ::setenv("LC_ALL", "de_DE.UTF-8", 1);
  ::setenv("LANGUAGE", "de", 1);
  ::setenv("_FUSE_COMMFD", "77", 1);
  mount(options());
  for (const char* name : {"LC_ALL", "LANGUAGE", "_FUSE_COMMFD"}) ::unsetenv(name);
  const auto environment = helper.environment();
  CHECK(countOf(environment, "LC_ALL=") == 1);
  CHECK(countOf(environment, "LC_ALL=C") == 1);
  CHECK(countOf(environment, "LANGUAGE=") == 0);
  CHECK(countOf(environment, "_FUSE_COMMFD=") == 1);
  CHECK(countOf(environment, "_FUSE_COMMFD=3") == 1);
  CHECK(countOf(environment, "PATH=") == 1);
  CHECK(helper.standardInput() == "/dev/null");
}

TEST_CASE("what the helper complains of is the error") {
  const FakeFusermount helper(HelperConduct::complains);
  CHECK(failureOf(options()) == FakeFusermount::complaint);
  CHECK_FALSE(hasChildren());
}

TEST_CASE("a complaint without end is cut") {
  const FakeFusermount helper(HelperConduct::complainsAtLength);
  const auto failure = failureOf(options());
  CHECK(failure.size() >= 4096);
  CHECK(failure.size() < 5000);
  CHECK(helper.hasFinished());
  CHECK_FALSE(hasChildren());
}

TEST_CASE("a helper that sends no descriptor has not mounted, whatever its status") {
  for (const auto conduct : {HelperConduct::diesSilently, HelperConduct::endsWithoutDescriptor, HelperConduct::sendsByteAlone}) {
    const FakeFusermount helper(conduct);
    CHECK(failureOf(options()) == "fusermount3 does not mount");
    CHECK_FALSE(hasChildren());
  }
}

TEST_CASE("a helper that is not there is named") {
  const FakeFusermount helper(HelperConduct::sendsDescriptor, false);
  CHECK(failureOf(options()) == "fusermount3 cannot be started: No such file or directory");
  CHECK_FALSE(hasChildren());
}

TEST_CASE("without a helper the error names what cannot be had: the device, or the place") {
  auto directly = options();
  directly.viaHelper = false;
  directly.mountpoint = "/nowhere/at/all";
  const auto failure = failureOf(directly);
  CHECK((failure == "/nowhere/at/all: No such file or directory" || failure.starts_with("/dev/fuse: ")));
}

TEST_SUITE_END();

}  // namespace iserfs::test
