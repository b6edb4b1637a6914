/** What the kernel is told to forget, in which order, and that nobody has to wait for it. */
#include "fuse/notifier.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "fuse_kernel.h"

namespace iserfs::test {

using namespace iserfs::fuse;

namespace {

constexpr std::uint64_t inode = 7;

struct Told {
  FuseKernel kernel;
  std::shared_ptr<Channel> channel = std::make_shared<Channel>(kernel.device());
  std::atomic<int> wakes{0};
  std::unique_ptr<Notifier> notifier = std::make_unique<Notifier>(channel, [this] { ++wakes; });
};

}  // namespace

TEST_SUITE_BEGIN("fuse notifier");

TEST_CASE("files and names are forgotten in the order in which it is told, and who wants to know is woken") {
  Told told;
  told.notifier->tell({.inode = inode, .offset = 4096, .length = 8192, .name = {}});
  told.notifier->tell({.id = 5, .inode = 1, .name = "disk.img"});
  told.notifier->tell({.id = 6, .inode = inode + 1, .name = {}});
  auto notice = told.kernel.answer();
  REQUIRE(notice.has_value());
  CHECK(notice->unique == 0);
  CHECK(notice->error == FUSE_NOTIFY_INVAL_INODE);
  REQUIRE(notice->body.size() == sizeof(fuse_notify_inval_inode_out));
  const auto range = fieldsOf<fuse_notify_inval_inode_out>(notice->body);
  CHECK(range.ino == inode);
  CHECK(range.off == 4096);
  CHECK(range.len == 8192);
  notice = told.kernel.answer();
  REQUIRE(notice.has_value());
  CHECK(notice->error == FUSE_NOTIFY_INVAL_ENTRY);
  const auto entry = fieldsOf<fuse_notify_inval_entry_out>(notice->body);
  CHECK(entry.parent == 1);
  CHECK(entry.namelen == 8);
  CHECK(Bytes(notice->body.begin() + sizeof entry, notice->body.end()) == textBytes({"disk.img\0", 9}));
  notice = told.kernel.answer();
  REQUIRE(notice.has_value());
  CHECK(notice->error == FUSE_NOTIFY_INVAL_INODE);
  CHECK(fieldsOf<fuse_notify_inval_inode_out>(notice->body).off == -1);
  CHECK(eventually([&] { return told.wakes == 2; }));
  CHECK(told.notifier->takeDone() == std::vector<std::uint32_t>{5, 6});
  CHECK(told.notifier->takeDone().empty());
}

TEST_CASE("a notice to a kernel that is gone is done all the same") {
  Told told;
  told.kernel.close();
  told.notifier->tell({.id = 1, .inode = inode, .name = {}});
  CHECK(eventually([&] { return told.wakes == 1; }));
  CHECK(told.notifier->takeDone() == std::vector<std::uint32_t>{1});
}

TEST_CASE("it ends with nothing told") {
  Told told;
  told.notifier.reset();
  CHECK_FALSE(told.kernel.hasAnswer());
}

TEST_CASE("a notice that the kernel holds up is waited for no longer than a second, and keeps the descriptor until it is through") {
  Told told;
  const int device = told.channel->device();
  // As the kernel does while somebody else must answer first: the socket takes no more.
  const Bytes filling(1000);
  while (::write(device, filling.data(), filling.size()) > 0) {
  }
  ::fcntl(device, F_SETFL, 0);
  const std::weak_ptr<Channel> channel = told.channel;
  told.notifier->tell({.id = 1, .inode = inode, .name = {}});
  told.notifier->tell({.id = 2, .inode = inode, .name = {}});
  // Time for the notice to be under way, which nothing shows; where it is not, it is never sent.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  told.notifier.reset();
  CHECK(told.wakes == 0);
  told.channel->close();
  // Its number must not become that of another file while somebody writes to it.
  const bool isOpen = ::fcntl(device, F_GETFD) >= 0;
  told.channel.reset();
  int notices = 0;
  while (const auto answer = told.kernel.received()) notices += answer->size() == filling.size() ? 0 : 1;
  CHECK(notices == (isOpen ? 1 : 0));
  CHECK(eventually([&] { return channel.expired(); }));
  CHECK(told.wakes == 0);
}

TEST_SUITE_END();

}  // namespace iserfs::test
