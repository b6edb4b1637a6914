/** The event loop under the software provider: order of tasks, time, and its end. */
#include "iwarp/socket_loop.h"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <vector>

#include "support.h"
#include "turning_thread.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

TEST_SUITE_BEGIN("iwarp socket loop");

TEST_CASE("tasks of several threads run one at a time, each thread's in order") {
  const LoopThread thread;
  const auto& loop = thread.loop();
  // Only the loop's thread touches it: anything else is a race that ThreadSanitizer sees.
  std::vector<std::pair<int, int>> ran;
  std::vector<std::thread> posters;
  for (int poster = 0; poster < 4; ++poster) {
    posters.emplace_back([&, poster] {
      for (int i = 0; i < 500; ++i) CHECK(loop->post([&ran, poster, i] { ran.emplace_back(poster, i); }));
    });
  }
  for (std::thread& poster : posters) poster.join();
  loop->runAndWait([&] {
    CHECK(ran.size() == 2000);
    std::array<int, 4> next{};
    for (const auto& [poster, i] : ran) CHECK(next[static_cast<std::size_t>(poster)]++ == i);
  });
}

TEST_CASE("a task that posts itself again does not keep others from running") {
  const LoopThread thread;
  const auto& loop = thread.loop();
  std::atomic<bool> isOver{false};
  std::function<void()> again = [&] {
    if (!isOver) loop->post(again);
  };
  loop->post(again);
  std::atomic<bool> hasRun{false};
  loop->post([&] { loop->startTimer(std::chrono::milliseconds(1), [&] { hasRun = true; }); });
  CHECK(eventually([&] { return hasRun.load(); }));
  isOver = true;
  loop->runAndWait([] {});
  loop->runAndWait([] {});
}

TEST_CASE("timers run once, in the order of their times, and not when they were stopped") {
  const LoopThread thread;
  const auto& loop = thread.loop();
  std::vector<int> ran;
  std::atomic<bool> isDone{false};
  loop->runAndWait([&] {
    loop->startTimer(std::chrono::milliseconds(30), [&] { isDone = true; });
    loop->startTimer(std::chrono::milliseconds(20), [&] { ran.push_back(3); });
    const auto stopped = loop->startTimer(std::chrono::milliseconds(5), [&] { ran.push_back(9); });
    loop->startTimer(std::chrono::milliseconds(10), [&] { ran.push_back(2); });
    loop->startTimer(std::chrono::milliseconds(0), [&] { ran.push_back(1); });
    loop->stopTimer(stopped);
    loop->stopTimer(stopped);
  });
  CHECK(eventually([&] { return isDone.load(); }));
  loop->runAndWait([&] { CHECK(ran == std::vector<int>{1, 2, 3}); });
}

TEST_CASE("what waits on the loop's own thread runs at once") {
  const LoopThread thread;
  bool hasRun = false;
  thread.loop()->runAndWait([&] { thread.loop()->runAndWait([&] { hasRun = true; }); });
  CHECK(hasRun);
}

TEST_CASE("after its end a loop drops what it is given, and nobody waits for it") {
  std::shared_ptr<SocketLoop> loop;
  {
    const LoopThread thread;
    loop = thread.loop();
  }
  auto held = std::make_shared<int>(1);
  CHECK_FALSE(loop->post([held] {}));
  CHECK(held.use_count() == 1);
  loop->runAndWait([] { FAIL("it ran"); });
}

TEST_SUITE_END();

}  // namespace iserfs::test
