/** The receiving byte machine: frames of Linux siw 6.1 (captured) cut anywhere, and every rule that a peer can break. */
#include "iwarp/receiver.h"

#include <doctest/doctest.h>

#include <array>
#include <functional>

#include "frames.h"
#include "iwarp/work_queues.h"
#include "support.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

namespace {

/** Captured with CRC: an INQUIRY's data and the response to it, a NOP-In, an empty Read Response, and what tgtd reads. */
const std::string capturedWrite =
    "0032c140000010020000000000010000000005123d00000249455420202020205649525455414c2d4449534b2020202030303031d976975b";
const std::string capturedSend =
    "005e414300000000000000000000000200000000100000000000000000000000000000000000000000000000000000002180000000000000000000000000"
    "00000000000200000000000000010000000200000082000000000000000000000000de1d43ae";

/** The books, with tags and addresses as the test would have them. */
class ScriptedHost final : public Receiver::Host {
 public:
  std::optional<std::span<std::byte>> beginMessage() noexcept override {
    if (!hasReceive) return std::nullopt;
    return std::span(receive.data(), receive.length);
  }
  std::optional<Violation> endMessage(std::uint32_t length, std::optional<std::uint32_t> tag) noexcept override {
    messages.push_back(length);
    invalidated = tag;
    return std::nullopt;
  }
  Receiver::Place beginWrite(std::uint32_t tag, std::uint64_t address, std::uint32_t length) noexcept override {
    if (tag != writeTag || address < writeAddress || address + length > writeAddress + target.length) {
      return {nullptr, Violation{"not there", terminate_code::taggedInvalidTag}};
    }
    ++writesBegun;
    return {target.data() + (address - writeAddress), std::nullopt};
  }
  void endWrite(std::uint32_t) noexcept override { ++writesEnded; }
  std::optional<Receiver::ReadSink> oldestRead() noexcept override { return read; }
  void endRead() noexcept override {
    ++readsEnded;
    read.reset();
  }
  std::optional<Violation> readRequested(const ReadRequest& request) noexcept override {
    requests.push_back(request);
    return std::nullopt;
  }

  bool hasReceive = true;
  Segment receive = memory(4096);
  std::uint32_t writeTag = 0x1002;
  std::uint64_t writeAddress = 0x10000;
  Segment target = memory(64 * 1024);
  std::optional<Receiver::ReadSink> read;

  std::vector<std::uint32_t> messages;
  std::optional<std::uint32_t> invalidated;
  unsigned writesBegun = 0;
  unsigned writesEnded = 0;
  unsigned readsEnded = 0;
  std::vector<ReadRequest> requests;
};

/** What a receiver makes of `bytes`; it has to break a rule. */
Violation violationOf(ScriptedHost& host, const Bytes& bytes) {
  Receiver receiver(host, true);
  receiver.feed(bytes);
  REQUIRE(receiver.state() == Receiver::State::violated);
  CHECK_FALSE(receiver.violation().text.empty());
  return receiver.violation();
}

TerminateCode codeOf(const Bytes& bytes) {
  ScriptedHost host;
  return violationOf(host, bytes).code;
}

const Bytes four = bytesOf("01020304");

}  // namespace

TEST_SUITE_BEGIN("iwarp receiver");

TEST_CASE("captured frames are placed and delivered wherever the stream is cut") {
  const Bytes stream = bytesOf(capturedWrite) + sendFrame(1, 0, four) + bytesOf(capturedSend);
  for (std::size_t cut = 1; cut < stream.size(); ++cut) {
    ScriptedHost host;
    Receiver receiver(host, true);
    CHECK(receiver.feed(std::span(stream).first(cut)) == Receiver::State::running);
    CHECK(receiver.feed(std::span(stream).subspan(cut)) == Receiver::State::running);
    REQUIRE(host.messages.size() == 2);
    CHECK(host.messages[1] == 76);
    CHECK(host.writesEnded == 1);
    CHECK(hexOf(std::span(host.target.data(), 36)) == capturedWrite.substr(32, 72));
    CHECK(hexOf(std::span(host.receive.data(), 76)) == capturedSend.substr(40, 152));
    CHECK(receiver.isIdle());
    CHECK(receiver.frameCount() == 3);
  }
}

TEST_CASE("captured frames arrive byte by byte") {
  ScriptedHost host;
  Receiver receiver(host, true);
  for (const std::byte byte : sendFrame(1, 0, four) + bytesOf(capturedSend)) receiver.feed({&byte, 1});
  CHECK(host.messages == std::vector<std::uint32_t>{4, 76});
}

TEST_CASE("a captured Send with Invalidate names the tag that it revokes") {
  ScriptedHost host;
  Receiver receiver(host, true);
  receiver.feed(sendFrame(1, 0, four) +
                bytesOf(
    "005e414400001002000000000000000200000000100000000000000000000000000000000000000000000000000000002180000000000000000000000000"
    "000000000002000000003e38025f0000000200000041000000000000000000000000ad7f5718"));
  CHECK(receiver.state() == Receiver::State::running);
  CHECK(host.invalidated == 0x1002);
}

TEST_CASE("a captured Read Request is handed on") {
  ScriptedHost host;
  Receiver receiver(host, true);
  receiver.feed(bytesOf("002e4141000000000000000100000001000000009f8d400000007f4fcafbc000000040000000201400000000000200009db98693"));
  REQUIRE(host.requests.size() == 1);
  CHECK(host.requests[0].sourceTag == 0x2014);
  CHECK(host.requests[0].length == 16384);
}

TEST_CASE("a captured Terminate ends it") {
  ScriptedHost host;
  Receiver receiver(host, true);
  CHECK(receiver.feed(bytesOf("00164147000000000000000200000001000000000202000075d367ed")) == Receiver::State::terminated);
  CHECK(describeTerminate(receiver.terminateMessage()).find("MPA: CRC error") != std::string::npos);
}

TEST_CASE("without CRC the last four bytes are not looked at") {
  ScriptedHost host;
  Receiver receiver(host, false);
  Bytes bytes = sendFrame(1, 0, four);
  for (std::size_t i = bytes.size() - 4; i < bytes.size(); ++i) bytes[i] = std::byte{0};
  CHECK(receiver.feed(bytes) == Receiver::State::running);
  CHECK(host.messages.size() == 1);
}

TEST_CASE("each flipped bit of a frame is noticed, and nothing is delivered") {
  const Bytes good = sendFrame(1, 0, four);
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bytes = good;
    bytes[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    ScriptedHost host;
    Receiver receiver(host, true);
    receiver.feed(bytes);
    // A longer length waits for more bytes, and is found wrong when they are there.
    if (receiver.state() == Receiver::State::running) receiver.feed(Bytes(70'000));
    CHECK(receiver.state() == Receiver::State::violated);
    CHECK(host.messages.empty());
  }
}

TEST_CASE("messages of several segments are put together where they belong") {
  const Bytes data = patternBytes(3000, 4);
  ScriptedHost host;
  Receiver receiver(host, true);
  const std::span all(data);
  receiver.feed(sendFrame(1, 0, all.first(1000), false) + writeFrame(0x1002, 0x10100, all.first(700), false) +
                sendFrame(1, 1000, all.subspan(1000, 1999), false) + writeFrame(0x1002, 0x10100 + 700, all.subspan(700)) +
                sendFrame(1, 2999, all.subspan(2999)));
  CHECK(receiver.state() == Receiver::State::running);
  CHECK(host.messages == std::vector<std::uint32_t>{3000});
  CHECK(hasPattern(part(host.receive, 0, 3000), 4));
  CHECK(hasPattern(part(host.target, 0x100, 3000), 4));
}

TEST_CASE("large payloads are named as the place of the next bytes, small ones come many at a time") {
  ScriptedHost host;
  Receiver receiver(host, true);
  CHECK(receiver.buffers().size() == 1);
  CHECK(receiver.buffers()[0].iov_len >= 16 * 1024);
  const Bytes large = writeFrame(0x1002, 0x10000, patternBytes(40'000, 1));
  receiver.feed(std::span(large).first(20));
  REQUIRE(receiver.buffers().size() == 2);
  CHECK(receiver.buffers()[0].iov_base == host.target.data() + 4);
  CHECK(receiver.buffers()[0].iov_len == 39'996);
  CHECK(receiver.buffers()[1].iov_len < 4096);
  receiver.feed(std::span(large).subspan(20));
  CHECK(receiver.buffers()[0].iov_len < 4096);
  for (std::uint32_t i = 1; i < 20; ++i) receiver.feed(sendFrame(i, 0, four));
  CHECK(receiver.buffers()[0].iov_len >= 16 * 1024);
  CHECK(host.messages.size() == 19);
}

TEST_CASE("a zero-length Write needs no tag") {
  ScriptedHost host;
  Receiver receiver(host, true);
  CHECK(receiver.feed(writeFrame(0, 0, {}) + writeFrame(0xffffffff, UINT64_MAX, {})) == Receiver::State::running);
  CHECK(host.writesBegun == 0);
}

TEST_CASE("a Read Response goes to its sink and ends the Read") {
  const Bytes data = patternBytes(3000, 8);
  ScriptedHost host;
  const Segment sink = memory(3000);
  host.read = Receiver::ReadSink{0x77, 0x5000, {sink.data(), sink.length}};
  Receiver receiver(host, true);
  receiver.feed(responseFrame(0x77, 0x5000, std::span(data).first(1000), false) +
                responseFrame(0x77, 0x5000 + 1000, std::span(data).subspan(1000)));
  CHECK(receiver.state() == Receiver::State::running);
  CHECK(host.readsEnded == 1);
  CHECK(hasPattern(sink, 8));
}

TEST_CASE("a zero-length Read is answered with an empty response") {
  ScriptedHost host;
  host.read = Receiver::ReadSink{7, 0, {}};
  Receiver receiver(host, true);
  // As siw sends it.
  CHECK(receiver.feed(bytesOf("000ec14200000007000000000000000073bbb60d")) == Receiver::State::running);
  CHECK(host.readsEnded == 1);
}

TEST_CASE("Read Responses that were not asked for, or not so, break a rule") {
  const Bytes data(100);
  const auto withRead = [&data](const Bytes& bytes) {
    ScriptedHost host;
    const Segment sink = memory(100);
    host.read = Receiver::ReadSink{0x77, 0x5000, {sink.data(), sink.length}};
    return violationOf(host, bytes).code;
  };
  CHECK(codeOf(responseFrame(0x77, 0x5000, data)) == terminate_code::unexpectedOpcode);
  CHECK(withRead(responseFrame(0x78, 0x5000, data)) == terminate_code::taggedInvalidTag);
  CHECK(withRead(responseFrame(0x77, 0x5001, data)) == terminate_code::taggedOutOfBounds);
  CHECK(withRead(responseFrame(0x77, 0x5000, Bytes(101))) == terminate_code::taggedOutOfBounds);
  CHECK(withRead(responseFrame(0x77, 0x5000, Bytes(99))) == terminate_code::taggedOutOfBounds);
  CHECK(withRead(responseFrame(0x77, 0x5000, data, false)) == terminate_code::taggedOutOfBounds);
  CHECK(withRead(responseFrame(0x77, 0x5000, std::span(data).first(50), false) + responseFrame(0x77, 0x5000, std::span(data).first(50))) ==
        terminate_code::taggedOutOfBounds);
}

TEST_CASE("messages out of sequence break a rule") {
  CHECK(codeOf(sendFrame(2, 0, four)) == terminate_code::untaggedMessageNumber);
  CHECK(codeOf(sendFrame(0, 0, four)) == terminate_code::untaggedMessageNumber);
  CHECK(codeOf(sendFrame(1, 0, four) + sendFrame(1, 0, four)) == terminate_code::untaggedMessageNumber);
  CHECK(codeOf(sendFrame(1, 4, four)) == terminate_code::untaggedMessageOffset);
  CHECK(codeOf(sendFrame(1, 0, four, false) + sendFrame(1, 5, four)) == terminate_code::untaggedMessageOffset);
  CHECK(codeOf(sendFrame(1, 0, four, false) + sendFrame(2, 0, four)) == terminate_code::untaggedMessageNumber);
  const ReadRequest request{1, 2, 3, 4, 5};
  CHECK(codeOf(readRequestFrame(2, request)) == terminate_code::untaggedMessageNumber);
  CHECK(codeOf(readRequestFrame(1, request) + readRequestFrame(1, request)) == terminate_code::untaggedMessageNumber);
}

TEST_CASE("queues other than the message's break a rule") {
  CHECK(codeOf(frame({.type = MessageType::send, .last = true, .queueNumber = 1, .messageNumber = 1}, four)) == terminate_code::untaggedQueue);
  CHECK(codeOf(frame({.type = MessageType::send, .last = true, .queueNumber = 5, .messageNumber = 1}, four)) == terminate_code::untaggedQueue);
  CHECK(codeOf(frame({.type = MessageType::readRequest, .last = true, .queueNumber = 0, .messageNumber = 1}, Bytes(28))) ==
        terminate_code::untaggedQueue);
  CHECK(codeOf(frame({.type = MessageType::terminate, .last = true, .queueNumber = 0, .messageNumber = 1}, four)) ==
        terminate_code::untaggedQueue);
}

TEST_CASE("a message longer than the posted receive, or without one, breaks a rule") {
  CHECK(codeOf(sendFrame(1, 0, Bytes(4097))) == terminate_code::untaggedTooLong);
  CHECK(codeOf(sendFrame(1, 0, Bytes(4096), false) + sendFrame(1, 4096, Bytes(1))) == terminate_code::untaggedTooLong);
  ScriptedHost host;
  host.hasReceive = false;
  CHECK(violationOf(host, sendFrame(1, 0, four)).code == terminate_code::untaggedNoBuffer);
}

TEST_CASE("messages of a class that are mixed break a rule") {
  CHECK(codeOf(sendFrame(1, 0, four, false) + readRequestFrame(1, {})) == terminate_code::unexpectedOpcode);
  CHECK(codeOf(writeFrame(0x1002, 0x10000, four, false) + responseFrame(1, 0, four)) == terminate_code::unexpectedOpcode);
  CHECK(codeOf(writeFrame(0x1002, 0x10000, four, false) + writeFrame(0x1003, 0x10004, four)) == terminate_code::taggedInvalidTag);
  CHECK(codeOf(writeFrame(0x1002, 0x10000, four, false) + writeFrame(0x1002, 0x10008, four)) == terminate_code::taggedOutOfBounds);
  CHECK(codeOf(sendFrame(1, 0, four, false) +
               frame({.type = MessageType::sendInvalidate, .last = true, .tag = 1, .messageNumber = 1, .messageOffset = 4}, four)) ==
        terminate_code::unexpectedOpcode);
}

TEST_CASE("lengths that cannot be break a rule") {
  CHECK(codeOf(sealed(bytesOf("00000000 00000000 00000000 00000000 00000000"))) == terminate_code::untaggedVersion);
  CHECK(codeOf(sealed(bytesOf("0000c140 00000000 00000000 00000000"))) == terminate_code::streamCatastrophe);
  CHECK(codeOf(frame({.type = MessageType::readRequest, .last = true, .queueNumber = 1, .messageNumber = 1}, Bytes(27))) ==
        terminate_code::streamCatastrophe);
  CHECK(codeOf(frame({.type = MessageType::readRequest, .last = false, .queueNumber = 1, .messageNumber = 1}, Bytes(28))) ==
        terminate_code::streamCatastrophe);
  CHECK(codeOf(frame({.type = MessageType::terminate, .last = true, .queueNumber = 2, .messageNumber = 1}, Bytes(129))) ==
        terminate_code::streamCatastrophe);
}

TEST_CASE("after a broken rule nothing more is taken") {
  ScriptedHost host;
  Receiver receiver(host, true);
  receiver.feed(sendFrame(2, 0, four) + sendFrame(1, 0, four));
  CHECK(receiver.feed(sendFrame(1, 0, four)) == Receiver::State::violated);
  CHECK(host.messages.empty());
}

TEST_CASE("the header at fault is kept for the Terminate message") {
  ScriptedHost host;
  Receiver receiver(host, true);
  receiver.feed(sendFrame(9, 0, four));
  CHECK(hexOf(receiver.offendingHeader()) == "0016414300000000000000000000000900000000");
}

TEST_CASE("a ready-to-receive Send takes no receive; any other first message is what it is") {
  ScriptedHost host;
  Receiver receiver(host, true, Rtr::send);
  CHECK(receiver.feed(sendFrame(1, 0, {}) + sendFrame(2, 0, four)) == Receiver::State::running);
  CHECK(host.messages == std::vector<std::uint32_t>{4});
  ScriptedHost other;
  Receiver ordinary(other, true, Rtr::send);
  CHECK(ordinary.feed(sendFrame(1, 0, four) + sendFrame(2, 0, {})) == Receiver::State::running);
  CHECK(other.messages == std::vector<std::uint32_t>{4, 0});
}

TEST_SUITE_END();

}  // namespace iserfs::test
