/** A connection with the kernel, which a socket plays: its terms, what is answered at once, where data comes to lie, and its end. */
#include "fuse/channel.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <thread>

#include "fuse_kernel.h"

namespace iserfs::test {

using namespace iserfs::fuse;

namespace {

constexpr std::uint64_t inode = 7;

struct Connected {
  FuseKernel kernel;
  Channel channel{kernel.device()};

  std::vector<Message> take(std::size_t most = SIZE_MAX) {
    std::vector<Message> messages;
    channel.take(messages, most);
    return messages;
  }
};

fuse_init_in termsOf(std::uint32_t minor, std::uint32_t flags, std::uint32_t flags2 = 0) {
  fuse_init_in fields{};
  fields.major = FUSE_KERNEL_VERSION;
  fields.minor = minor;
  fields.max_readahead = 128 * 1024;
  fields.flags = flags;
  fields.flags2 = flags2;
  return fields;
}

/** What is answered to the first message of a connection; nothing is left then. */
FuseKernel::Answer answerToInit(Connected& connected, std::span<const std::byte> message) {
  const LentSlot lent(0);
  connected.channel.addSlot(lent.slot());
  connected.kernel.send(message);
  CHECK(connected.channel.read(1) == ReadEnd::limit);
  CHECK(connected.channel.read(1) == ReadEnd::empty);
  CHECK_FALSE(connected.channel.hasMessages());
  const auto answer = connected.kernel.answer();
  REQUIRE(answer.has_value());
  CHECK_FALSE(connected.kernel.hasAnswer());
  return *answer;
}

Bytes pattern(std::uint32_t length, std::uint32_t seed) {
  const auto segment = memory(length);
  fillPattern(segment, seed);
  return {segment.data(), segment.data() + length};
}

}  // namespace

TEST_SUITE_BEGIN("fuse channel");

TEST_CASE("the terms are the least that both ends have, with what is made use of") {
  Connected connected;
  const auto everything = ~std::uint32_t{0};
  const auto answer = answerToInit(connected, initMessage(2, termsOf(45, everything, everything)));
  CHECK(answer.error == 0);
  CHECK(answer.unique == 2);
  CHECK(answer.body.size() == sizeof(fuse_init_out));
  const auto terms = fieldsOf<fuse_init_out>(answer.body);
  CHECK(terms.major == FUSE_KERNEL_VERSION);
  CHECK(terms.minor == FUSE_KERNEL_MINOR_VERSION);
  CHECK(terms.max_readahead == 128 * 1024);
  CHECK(terms.flags == (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |
                        FUSE_PARALLEL_DIROPS | FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_INIT_EXT));
  CHECK(terms.flags2 == directIoAllowMmap);
  CHECK(terms.max_write == maxTransfer);
  CHECK(terms.max_pages == maxTransfer / pageLength);
  CHECK(terms.max_background > 0);
  CHECK(terms.congestion_threshold <= terms.max_background);
  CHECK(connected.channel.isInitialised());
  CHECK(connected.channel.mixesDirectIo());
}

TEST_CASE("nothing is promised that the kernel has not offered") {
  Connected connected;
  auto wanted = termsOf(28, FUSE_ASYNC_READ | FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS, directIoAllowMmap);
  wanted.max_readahead = UINT32_MAX;
  const auto terms = fieldsOf<fuse_init_out>(answerToInit(connected, initMessage(2, wanted)).body);
  CHECK(terms.flags == FUSE_ASYNC_READ);
  // Without FUSE_INIT_EXT the kernel has no second flags, whatever is in their place.
  CHECK(terms.flags2 == 0);
  CHECK(terms.max_readahead == maxTransfer);
  CHECK(connected.channel.isInitialised());
  CHECK_FALSE(connected.channel.mixesDirectIo());
}

TEST_CASE("a kernel that is too old is refused") {
  auto older = termsOf(31, 0);
  older.major = 6;
  for (const auto& wanted : {termsOf(27, 0), termsOf(0, 0), older}) {
    Connected connected;
    const auto answer = answerToInit(connected, initMessage(4, wanted));
    CHECK(answer.error == -EPROTO);
    CHECK(answer.unique == 4);
    CHECK(answer.body.empty());
    CHECK_FALSE(connected.channel.isInitialised());
  }
  // Terms that are missing are none.
  Connected connected;
  CHECK(answerToInit(connected, kernelMessage(FUSE_INIT, 4, 0)).error == -EPROTO);
}

TEST_CASE("old kernels' terms are shorter") {
  Connected connected;
  auto body = bytesOfFields(termsOf(31, FUSE_MAX_PAGES));
  body.resize(16);
  const auto terms = fieldsOf<fuse_init_out>(answerToInit(connected, kernelMessage(FUSE_INIT, 2, 0, body)).body);
  CHECK(terms.flags == FUSE_MAX_PAGES);
  CHECK(connected.channel.isInitialised());
}

TEST_CASE("a newer kernel is told our version, and asks again") {
  Connected connected;
  auto newer = termsOf(0, 0);
  newer.major = FUSE_KERNEL_VERSION + 1;
  const auto answer = answerToInit(connected, initMessage(2, newer));
  CHECK(answer.error == 0);
  const auto terms = fieldsOf<fuse_init_out>(answer.body);
  CHECK(terms.major == FUSE_KERNEL_VERSION);
  CHECK(terms.minor == FUSE_KERNEL_MINOR_VERSION);
  CHECK_FALSE(connected.channel.isInitialised());
  CHECK(answerToInit(connected, initMessage(4, termsOf(40, 0))).error == 0);
  CHECK(connected.channel.isInitialised());
}

TEST_CASE("reads are answered from memory, and those that cannot be are for JavaScript") {
  Connected connected;
  const LentSlot lent(0);
  connected.channel.addSlot(lent.slot());
  const auto shown = memory(8 * pageLength);
  fillPattern(shown, 1);
  auto& pages = connected.channel.pages();
  pages.setSize(inode, 8 * pageLength - 100);
  pages.show(inode, 0, {shown.data(), 4 * pageLength});
  pages.show(inode, 5 * pageLength, {shown.data() + 5 * pageLength, 3 * pageLength});
  struct Case {
    std::uint64_t offset;
    std::uint32_t length;
    std::size_t answered;
  };
  std::uint64_t unique = 10;
  for (const auto& [offset, length, answered] : {
           Case{0, pageLength, pageLength},
           Case{100, 2 * pageLength, 2 * pageLength},
           Case{4 * pageLength - 1, 1, 1},
           Case{4 * pageLength - 1, 2, 0},
           Case{4 * pageLength, pageLength, 0},
           Case{6 * pageLength, 2 * pageLength, 2 * pageLength - 100},
           Case{8 * pageLength - 100, 1, 0},
           Case{UINT64_MAX, UINT32_MAX, 0},
           Case{0, 0, 0},
           Case{7 * pageLength, maxTransfer, pageLength - 100},
           // The kernel never asks for as much.
           Case{7 * pageLength, maxTransfer + 1, 0},
       }) {
    CAPTURE(offset);
    CAPTURE(length);
    unique += 2;
    connected.kernel.send(readMessage(unique, inode, offset, length));
    CHECK(connected.channel.read(1) == ReadEnd::limit);
    const auto messages = connected.take();
    if (answered == 0) {
      CHECK_FALSE(connected.kernel.hasAnswer());
      REQUIRE(messages.size() == 1);
      CHECK(messages[0].opcode == FUSE_READ);
      CHECK(messages[0].unique == unique);
      CHECK(messages[0].offset == offset);
      CHECK(messages[0].length == length);
      CHECK(messages[0].slot == noSlot);
    } else {
      CHECK(messages.empty());
      const auto answer = connected.kernel.answer();
      REQUIRE(answer.has_value());
      CHECK(answer->error == 0);
      CHECK(answer->unique == unique);
      CHECK(answer->body == Bytes(shown.data() + offset, shown.data() + offset + answered));
    }
  }
  CHECK(pages.hits(inode) == 5);
}

TEST_CASE("an answer from memory may be in pieces") {
  Connected connected;
  const LentSlot lent(0);
  connected.channel.addSlot(lent.slot());
  // Every page behind the one that comes after it.
  constexpr std::uint32_t pageCount = 32;
  const auto shown = memory(pageCount * pageLength);
  fillPattern(shown, 2);
  auto& pages = connected.channel.pages();
  pages.setSize(inode, pageCount * pageLength);
  Bytes expected;
  for (std::uint32_t page = 0; page < pageCount; ++page) {
    const auto* from = shown.data() + (pageCount - 1 - page) * pageLength;
    pages.show(inode, page * pageLength, {from, pageLength});
    expected.insert(expected.end(), from, from + pageLength);
  }
  connected.kernel.send(readMessage(2, inode, 5, pageCount * pageLength));
  CHECK(connected.channel.read(1) == ReadEnd::limit);
  const auto answer = connected.kernel.answer();
  REQUIRE(answer.has_value());
  CHECK(answer->body == Bytes(expected.begin() + 5, expected.end()));
}

TEST_CASE("the data of a write lies in a slot from its start, and nothing else is in it") {
  Connected connected;
  const LentSlot first(3);
  const LentSlot second(9);
  connected.channel.addSlot(second.slot());
  connected.channel.addSlot(first.slot());
  CHECK(connected.channel.freeSlots() == 2);
  const auto data = pattern(100'001, 3);
  connected.kernel.send(writeMessage(2, inode, 4096, data));
  CHECK(connected.channel.read(1) == ReadEnd::limit);
  connected.kernel.send(writeMessage(4, inode, 8, std::span(data).first(1)));
  CHECK(connected.channel.read(1) == ReadEnd::limit);
  const auto messages = connected.take();
  REQUIRE(messages.size() == 2);
  CHECK(messages[0].opcode == FUSE_WRITE);
  CHECK(messages[0].offset == 4096);
  CHECK(messages[0].length == data.size());
  CHECK(messages[0].slot == 3);
  CHECK(reinterpret_cast<std::uintptr_t>(first.segment.data()) % pageLength == 0);
  CHECK(Bytes(first.segment.data(), first.segment.data() + data.size()) == data);
  CHECK(isFilledWith(part(first.segment, 100'001, maxTransfer - 100'001), LentSlot::canary));
  CHECK(messages[1].slot == 9);
  CHECK(second.segment.data()[0] == data[0]);
  CHECK(isFilledWith(part(second.segment, 1, maxTransfer - 1), LentSlot::canary));
  CHECK_FALSE(connected.channel.canRead());
}

TEST_CASE("a write that contradicts itself is answered, and its slot is there for the next") {
  Connected connected;
  const LentSlot lent(5);
  connected.channel.addSlot(lent.slot());
  auto lying = writeMessage(2, inode, 0, pattern(5000, 4));
  const std::uint32_t size = 4999;
  std::memcpy(lying.data() + sizeof(fuse_in_header) + offsetof(fuse_write_in, size), &size, sizeof size);
  connected.kernel.send(lying);
  connected.kernel.send(writeMessage(4, inode, 0, pattern(10, 5)));
  CHECK(connected.channel.read(8) == ReadEnd::starved);
  const auto answer = connected.kernel.answer();
  REQUIRE(answer.has_value());
  CHECK(answer->error == -EIO);
  CHECK(answer->unique == 2);
  const auto messages = connected.take();
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].unique == 4);
  CHECK(messages[0].slot == 5);
  CHECK(Bytes(lent.segment.data(), lent.segment.data() + 10) == pattern(10, 5));
}

TEST_CASE("nothing is read without a slot, and what waits is read when one is lent") {
  Connected connected;
  CHECK(connected.channel.read(1) == ReadEnd::starved);
  CHECK_FALSE(connected.channel.canRead());
  connected.kernel.send(kernelMessage(FUSE_GETATTR, 2, inode));
  connected.kernel.send(writeMessage(4, inode, 0, pattern(10, 6)));
  connected.kernel.send(kernelMessage(FUSE_GETATTR, 6, inode));
  CHECK(connected.channel.read(8) == ReadEnd::starved);
  CHECK(connected.channel.messagesRead() == 0);
  const LentSlot lent(1);
  connected.channel.addSlot(lent.slot());
  CHECK(connected.channel.canRead());
  CHECK(connected.channel.read(8) == ReadEnd::starved);
  CHECK(connected.channel.messagesRead() == 2);
  CHECK(connected.take().size() == 2);
  connected.channel.addSlot(lent.slot());
  CHECK(connected.channel.read(8) == ReadEnd::empty);
  CHECK(connected.take().size() == 1);
}

TEST_CASE("a slot is taken back unless it is that of the next message") {
  Connected connected;
  CHECK_FALSE(connected.channel.takeSlot().has_value());
  const LentSlot first(1);
  const LentSlot second(2);
  connected.channel.addSlot(first.slot());
  connected.channel.addSlot(second.slot());
  CHECK(connected.channel.read(1) == ReadEnd::empty);
  CHECK(connected.channel.freeSlots() == 1);
  const auto taken = connected.channel.takeSlot();
  REQUIRE(taken.has_value());
  CHECK_FALSE(connected.channel.takeSlot().has_value());
  CHECK(connected.channel.canRead());
  connected.kernel.send(writeMessage(2, inode, 0, pattern(10, 7)));
  CHECK(connected.channel.read(2) == ReadEnd::starved);
  const auto messages = connected.take();
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].slot + *taken == 3);
}

TEST_CASE("as many messages are read as are wanted, and taken in their order") {
  Connected connected;
  const LentSlot lent(0);
  connected.channel.addSlot(lent.slot());
  CHECK(connected.channel.read(0) == ReadEnd::limit);
  std::uint64_t sent = 0;
  std::uint64_t taken = 0;
  const auto send = [&](int count) {
    for (int i = 0; i < count; ++i) connected.kernel.send(kernelMessage(FUSE_GETATTR, ++sent, inode));
  };
  const auto take = [&](std::size_t most, std::size_t count) {
    const auto messages = connected.take(most);
    CHECK(messages.size() == count);
    for (const auto& message : messages) CHECK(message.unique == ++taken);
    CHECK(connected.channel.hasMessages() == (taken < connected.channel.messagesRead()));
  };
  take(5, 0);
  send(6);
  CHECK(connected.channel.read(4) == ReadEnd::limit);
  take(0, 0);
  take(1, 1);
  CHECK(connected.channel.read(4) == ReadEnd::empty);
  take(2, 2);
  send(3);
  CHECK(connected.channel.read(3) == ReadEnd::limit);
  take(3, 3);
  take(1, 1);
  take(100, 2);
  take(100, 0);
  CHECK(taken == sent);
}

TEST_CASE("what needs nobody else is answered at once, and what wants no answer gets none") {
  Connected connected;
  const LentSlot lent(0);
  connected.channel.addSlot(lent.slot());
  connected.kernel.send(kernelMessage(FUSE_UNLINK, 2, 1, textBytes({"disk\0", 5})));
  connected.kernel.send(kernelMessage(FUSE_FORGET, 4, inode, Bytes(8)));
  connected.kernel.send(kernelMessage(FUSE_GETXATTR, 6, inode, Bytes(16)));
  // Without a whole header nobody knows whom to answer.
  connected.kernel.send(Bytes(39));
  connected.kernel.send(kernelMessage(FUSE_DESTROY, 8, 0));
  CHECK(connected.channel.read(8) == ReadEnd::empty);
  CHECK(connected.channel.messagesRead() == 5);
  CHECK_FALSE(connected.channel.hasMessages());
  struct Expected {
    std::uint64_t unique;
    int error;
  };
  for (const auto& [unique, error] : {Expected{2, EPERM}, Expected{6, ENOSYS}, Expected{8, 0}}) {
    const auto answer = connected.kernel.answer();
    REQUIRE(answer.has_value());
    CHECK(answer->unique == unique);
    CHECK(answer->error == -error);
    CHECK(answer->body.empty());
  }
  CHECK_FALSE(connected.kernel.hasAnswer());
}

TEST_CASE("an answer has an error or a body, of up to a thousand pieces") {
  Connected connected;
  auto bytes = pattern(1001, 8);
  std::vector<iovec> pieces;
  for (auto& byte : bytes) pieces.push_back({.iov_base = &byte, .iov_len = 1});
  connected.channel.answer(2, 0, std::span(pieces).first(1000));
  connected.channel.answer(4, 0, pieces);
  connected.channel.answer(6, ENOSPC, std::span(pieces).first(3));
  connected.channel.answer(8, 0);
  auto answer = connected.kernel.answer();
  REQUIRE(answer.has_value());
  CHECK(answer->unique == 2);
  CHECK(answer->error == 0);
  CHECK(answer->body == Bytes(bytes.begin(), bytes.begin() + 1000));
  for (const auto& [unique, error] : {std::pair{4, EIO}, std::pair{6, ENOSPC}, std::pair{8, 0}}) {
    answer = connected.kernel.answer();
    REQUIRE(answer.has_value());
    CHECK(answer->unique == static_cast<std::uint64_t>(unique));
    CHECK(answer->error == -error);
    CHECK(answer->body.empty());
  }
}

TEST_CASE("a body that the kernel refuses becomes an error, since somebody waits") {
  Connected connected;
  const iovec nowhere{.iov_base = nullptr, .iov_len = 100};
  connected.channel.answer(2, 0, {&nowhere, 1});
  const auto answer = connected.kernel.answer();
  REQUIRE(answer.has_value());
  CHECK(answer->unique == 2);
  CHECK(answer->error == -EIO);
}

TEST_CASE("a notice has its code and no request") {
  Connected connected;
  fuse_notify_inval_inode_out fields{};
  fields.ino = inode;
  fields.off = 4096;
  fields.len = 8192;
  const iovec body{.iov_base = &fields, .iov_len = sizeof fields};
  CHECK(connected.channel.notify(FUSE_NOTIFY_INVAL_INODE, {&body, 1}) == 0);
  const auto notice = connected.kernel.answer();
  REQUIRE(notice.has_value());
  CHECK(notice->unique == 0);
  CHECK(notice->error == FUSE_NOTIFY_INVAL_INODE);
  CHECK(notice->body == bytesOfFields(fields));
}

TEST_CASE("the connection ends with the kernel's end, after what it had asked, and stays ended") {
  Connected connected;
  const LentSlot lent(0);
  connected.channel.addSlot(lent.slot());
  connected.kernel.send(kernelMessage(FUSE_GETATTR, 2, inode));
  connected.kernel.close();
  CHECK(connected.channel.read(1) == ReadEnd::limit);
  CHECK_FALSE(connected.channel.hasEnded());
  CHECK(connected.channel.read(8) == ReadEnd::ended);
  CHECK(connected.channel.hasEnded());
  CHECK(connected.take().size() == 1);
  CHECK(connected.channel.read(8) == ReadEnd::ended);
  // Nobody waits any more.
  connected.channel.answer(2, 0);
  CHECK(connected.channel.notify(FUSE_NOTIFY_INVAL_INODE, {}) != 0);
}

TEST_CASE("the end of the connection is seen also without a slot") {
  Connected connected;
  CHECK(connected.channel.read(8) == ReadEnd::starved);
  connected.kernel.close();
  CHECK(connected.channel.read(8) == ReadEnd::ended);
  CHECK(connected.channel.hasEnded());
}

TEST_CASE("a channel that was closed says no more") {
  Connected connected;
  connected.channel.close();
  connected.channel.close();
  CHECK(connected.channel.notify(FUSE_NOTIFY_INVAL_INODE, {}) == EBADF);
  connected.channel.answer(2, 0);
  CHECK_FALSE(connected.kernel.answer().has_value());
}

TEST_CASE("several threads read, and every message comes once and whole") {
  constexpr std::uint64_t count = 600;
  constexpr std::uint32_t slotCount = 4;
  Connected connected;
  std::vector<std::unique_ptr<LentSlot>> slots;
  for (std::uint32_t number = 0; number < slotCount; ++number) {
    slots.push_back(std::make_unique<LentSlot>(number));
    connected.channel.addSlot(slots.back()->slot());
  }
  const auto shown = memory(pageLength);
  connected.channel.pages().setSize(inode, pageLength);
  connected.channel.pages().show(inode, 0, {shown.data(), pageLength});
  std::atomic<bool> isOver{false};
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&] {
      while (!isOver) {
        if (connected.channel.read(3) != ReadEnd::limit) std::this_thread::yield();
      }
    });
  }
  std::atomic<std::uint64_t> answers{0};
  std::thread kernel([&] {
    // A third is answered from memory: no more answers at once than the socket, unlike the device, has room for.
    for (std::uint64_t unique = 1; unique <= count; ++unique) {
      if (unique % 3 == 0) connected.kernel.send(readMessage(unique, inode, 0, 1000));
      else connected.kernel.send(writeMessage(unique, inode, unique, Bytes(100 + unique, static_cast<std::byte>(unique))));
      while (unique % 60 == 0 && answers < unique / 3 && connected.kernel.answer().has_value()) ++answers;
    }
  });
  std::uint64_t expected = 1;
  std::vector<Message> messages;
  const bool areAllThere = eventually([&] {
    messages.clear();
    connected.channel.take(messages, 7);
    for (const auto& message : messages) {
      CHECK(message.unique == expected);
      CHECK(message.offset == expected);
      CHECK(message.length == 100 + expected);
      REQUIRE(message.slot < slotCount);
      const auto& segment = slots[message.slot]->segment;
      CHECK(isFilledWith(part(segment, 0, static_cast<std::uint32_t>(message.length)), static_cast<std::byte>(expected)));
      connected.channel.addSlot(slots[message.slot]->slot());
      expected += expected % 3 == 2 ? 2U : 1U;
    }
    return expected > count - 1;
  });
  CHECK(areAllThere);
  kernel.join();
  CHECK(answers == count / 3);
  isOver = true;
  for (auto& reader : readers) reader.join();
  CHECK(connected.channel.messagesRead() == count);
}

TEST_SUITE_END();

}  // namespace iserfs::test
