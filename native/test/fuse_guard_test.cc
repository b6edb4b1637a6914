/** The thread that reads in the place of an event loop that has no time. */
#include "fuse/guard.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "fuse_kernel.h"

namespace iserfs::test {

using namespace iserfs::fuse;

namespace {

constexpr std::uint64_t inode = 7;

/** A guard with one slot or none. Nobody counts turns but who says so. */
struct Guarded {
  explicit Guarded(bool hasSlot = true) {
    if (hasSlot) channel.addSlot(lent.slot());
    guard.emplace(channel, [this] {
      if (isDestroyed) ++wakesAfterEnd;
      ++wakes;
    });
  }
  ~Guarded() { destroyGuard(); }

  void destroyGuard() {
    guard.reset();
    isDestroyed = true;
  }

  LentSlot lent{0};
  FuseKernel kernel;
  Channel channel{kernel.device()};
  std::atomic<int> wakes{0};
  std::atomic<int> wakesAfterEnd{0};
  std::atomic<bool> isDestroyed{false};
  std::optional<Guard> guard;
};

/** How often the guard's thread of this process has gone to sleep; nothing where it does not run yet. */
std::optional<long> sleepsOfGuard() {
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(thread.path() / "comm"), name);
    if (name != "iserfs-guard") continue;
    std::ifstream status(thread.path() / "status");
    for (std::string line; std::getline(status, line);) {
      constexpr std::string_view field = "voluntary_ctxt_switches:";
      if (line.starts_with(field)) return std::stol(line.substr(field.size()));
    }
  }
  return std::nullopt;
}

/** It sleeps for a good while: dozens of times as long as it does between looks. */
bool sleepsSoundly() {
  return eventually([] {
    const auto before = sleepsOfGuard();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    return before.has_value() && sleepsOfGuard() == before;
  });
}

}  // namespace

TEST_SUITE_BEGIN("fuse guard");

TEST_CASE("while nobody counts turns what is in memory is answered, and nobody is woken for it") {
  Guarded guarded;
  const auto shown = memory(2 * pageLength);
  fillPattern(shown, 1);
  guarded.channel.pages().setSize(inode, 2 * pageLength);
  guarded.channel.pages().show(inode, 0, {shown.data(), shown.length});
  for (std::uint64_t unique = 1; unique <= 100; ++unique) {
    guarded.kernel.send(readMessage(unique, inode, unique, 1000));
    const auto answer = guarded.kernel.answer();
    REQUIRE(answer.has_value());
    CHECK(answer->unique == unique);
    CHECK(answer->body == Bytes(shown.data() + unique, shown.data() + unique + 1000));
  }
  CHECK(eventually([&] { return guarded.guard->messagesRead() == 100; }));
  guarded.destroyGuard();
  CHECK(guarded.wakes == 0);
}

TEST_CASE("messages are left alone while turns are counted, and read when that has ended") {
  using Clock = std::chrono::steady_clock;
  // Where the machine lets this thread count less often than the guard is patient, nothing is shown: again.
  constexpr auto patience = std::chrono::microseconds(800);
  constexpr auto round = std::chrono::milliseconds(8);
  constexpr long fewestLooks = 5;
  CHECK(eventually([&] {
    Guarded guarded;
    const long sleepsBefore = sleepsOfGuard().value_or(0);
    const auto start = Clock::now();
    auto last = start;
    auto longest = Clock::duration::zero();
    std::uint64_t read = 0;
    guarded.guard->countTurn();
    guarded.kernel.send(kernelMessage(FUSE_GETATTR, 2, inode));
    while (last < start + round) {
      const auto next = Clock::now();
      guarded.guard->countTurn();
      read = guarded.guard->messagesRead();
      longest = std::max(longest, Clock::now() - std::exchange(last, next));
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    if (longest >= patience || sleepsOfGuard().value_or(0) < sleepsBefore + fewestLooks) return false;
    CHECK(read == 0);
    CHECK(eventually([&] { return guarded.wakes > 0 && guarded.channel.hasMessages(); }));
    return true;
  }));
}

TEST_CASE("JavaScript is woken for what is not in memory") {
  Guarded guarded;
  guarded.kernel.send(readMessage(2, inode, 0, 1000));
  CHECK(eventually([&] { return guarded.wakes > 0; }));
  std::vector<Message> messages;
  guarded.channel.take(messages, 8);
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].unique == 2);
  CHECK_FALSE(guarded.kernel.hasAnswer());
}

TEST_CASE("JavaScript is woken when the terms are settled") {
  Guarded guarded;
  fuse_init_in wanted{};
  wanted.major = FUSE_KERNEL_VERSION;
  wanted.minor = 31;
  guarded.kernel.send(initMessage(2, wanted));
  CHECK(guarded.kernel.answer().has_value());
  CHECK(eventually([&] { return guarded.wakes > 0; }));
  CHECK(guarded.channel.isInitialised());
}

TEST_CASE("a write takes the only slot, and what comes behind it waits for another") {
  Guarded guarded;
  guarded.kernel.send(writeMessage(2, inode, 0, Bytes(100, std::byte{1})));
  guarded.kernel.send(kernelMessage(FUSE_GETATTR, 4, inode));
  CHECK(eventually([&] { return guarded.wakes > 0 && guarded.channel.hasMessages(); }));
  std::vector<Message> messages;
  guarded.channel.take(messages, 8);
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].slot == 0);
  const int wakesBefore = guarded.wakes;
  guarded.channel.addSlot(guarded.lent.slot());
  CHECK(eventually([&] { return guarded.wakes > wakesBefore && guarded.channel.hasMessages(); }));
  messages.clear();
  guarded.channel.take(messages, 8);
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].unique == 4);
}

TEST_CASE("it sleeps without traffic, and also while nothing can be read for want of a slot") {
  Guarded idle;
  CHECK(sleepsSoundly());
  idle.destroyGuard();
  Guarded starved(false);
  starved.kernel.send(kernelMessage(FUSE_GETATTR, 2, inode));
  CHECK(sleepsSoundly());
  CHECK(starved.wakes == 0);
  starved.channel.addSlot(starved.lent.slot());
  CHECK(eventually([&] { return starved.wakes > 0 && starved.channel.hasMessages(); }));
}

TEST_CASE("JavaScript is woken at the end of the connection, also while there is no slot") {
  Guarded starved(false);
  CHECK(sleepsSoundly());
  starved.kernel.close();
  CHECK(eventually([&] { return starved.wakes > 0; }));
  CHECK(starved.channel.hasEnded());
}

TEST_CASE("the end comes before what the kernel had asked when there is no slot to read it with") {
  Guarded starved(false);
  starved.kernel.send(kernelMessage(FUSE_GETATTR, 2, inode));
  starved.kernel.close();
  CHECK(eventually([&] { return starved.wakes > 0; }));
  CHECK(starved.channel.hasEnded());
}

TEST_CASE("JavaScript is woken at the end of the connection") {
  Guarded guarded;
  guarded.kernel.close();
  CHECK(eventually([&] { return guarded.wakes > 0; }));
  CHECK(guarded.channel.hasEnded());
}

TEST_CASE("JavaScript reads and counts beside it: every message comes once") {
  constexpr std::uint64_t count = 500;
  Guarded guarded;
  std::thread kernel([&] {
    for (std::uint64_t unique = 1; unique <= count; ++unique) guarded.kernel.send(kernelMessage(FUSE_GETATTR, unique, inode));
  });
  std::uint64_t expected = 1;
  std::vector<Message> messages;
  CHECK(eventually([&] {
    if (expected % 2 == 0) guarded.guard->countTurn();
    if (expected % 3 == 0) guarded.channel.read(2);
    messages.clear();
    guarded.channel.take(messages, 5);
    for (const auto& message : messages) CHECK(message.unique == expected++);
    return expected > count;
  }));
  kernel.join();
}

TEST_CASE("it ends while it is asleep, with and without a slot") {
  for (const bool hasSlot : {true, false}) {
    for (int round = 0; round < 20; ++round) {
      Guarded guarded(hasSlot);
      guarded.destroyGuard();
      CHECK(guarded.wakes == 0);
    }
  }
}

TEST_CASE("it ends while it reads, and wakes nobody after that") {
  for (int round = 0; round < 20; ++round) {
    Guarded guarded;
    std::atomic<bool> isOver{false};
    std::thread kernel([&] {
      // Whether or not anybody reads: no more than there is room for.
      for (std::uint64_t unique = 1; unique <= 100 && !isOver; ++unique) guarded.kernel.send(kernelMessage(FUSE_GETATTR, unique, inode));
    });
    CHECK(eventually([&] { return guarded.wakes > 0; }));
    guarded.destroyGuard();
    isOver = true;
    kernel.join();
    guarded.channel.read(1000);
    CHECK(guarded.wakesAfterEnd == 0);
  }
}

TEST_SUITE_END();

}  // namespace iserfs::test
