/**
 * Transmitter, receiver and books of two ends, wired to each other without sockets: random histories in which every byte, every
 * completion and every refusal is compared with what was asked for, whatever the sizes of frames and reads.
 */
#include <doctest/doctest.h>

#include <array>
#include <deque>
#include <random>

#include "frames.h"
#include "iwarp/receiver.h"
#include "iwarp/transmitter.h"
#include "iwarp/work_queues.h"
#include "support.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

namespace {

struct Side {
  Side(const QueuePairOptions& options, std::size_t maximumFpdu, std::uint64_t seed)
      : queues(options, seed, [] {}), transmitter(queues, true, maximumFpdu), receiver(queues, true) {}

  std::vector<Completion> completions() {
    std::vector<Completion> batch;
    queues.takeCompletions(batch);
    return batch;
  }

  WorkQueues queues;
  Transmitter transmitter;
  Receiver receiver;
};

/** Moves at most `most` bytes from one to the other. */
std::size_t move(Side& from, Side& to, std::size_t most) {
  Bytes bytes;
  for (const iovec& part : from.transmitter.gather(most)) {
    const auto* data = static_cast<const std::byte*>(part.iov_base);
    bytes.insert(bytes.end(), data, data + std::min(part.iov_len, most - bytes.size()));
    if (bytes.size() == most) break;
  }
  from.transmitter.sent(bytes.size());
  to.receiver.feed(bytes);
  REQUIRE_MESSAGE(to.receiver.state() == Receiver::State::running, to.receiver.violation().text);
  return bytes.size();
}

/** What one end has asked for, and how it is to end. */
class History {
 public:
  History(Side& self, Side& peer, std::uint32_t seed) : self_(self), peer_(peer), random_(seed) {}

  void step() {
    switch (pick(4)) {
      case 0: return send();
      case 1: return write();
      case 2: return read();
      default: return;
    }
  }

  /** Takes note of what has ended at this end. */
  void settle() {
    for (const Completion& completion : self_.completions()) {
      REQUIRE(completion.status == Status::success);
      if (completion.opcode == Opcode::receive) {
        REQUIRE_FALSE(incoming.empty());
        CHECK(completion.byteLength == incoming.front().length);
        CHECK(hasPattern(part(receives.front(), 0, completion.byteLength), incoming.front().seed));
        CHECK(completion.hasInvalidated == incoming.front().invalidates);
        CHECK(isFilledWith(part(receives.front(), completion.byteLength, receives.front().length - completion.byteLength), std::byte{0}));
        incoming.pop_front();
        receives.pop_front();
        postReceive();
        continue;
      }
      --inFlight;
      if (completion.opcode == Opcode::read) {
        CHECK(hasPattern(reads_.front().into, reads_.front().seed));
        peer_.queues.revoke(reads_.front().tag);
        reads_.pop_front();
      }
    }
  }

  void postReceive() {
    receives.push_back(memory(6000));
    self_.queues.postReceive(0, receives.back());
  }

  struct Incoming {
    std::uint32_t length;
    std::uint32_t seed;
    bool invalidates;
  };
  /** Of the messages that this end will receive. */
  std::deque<Incoming> incoming;
  std::deque<Segment> receives;
  History* other = nullptr;
  unsigned inFlight = 0;

 private:
  struct Reading {
    Segment into;
    std::uint32_t seed;
    std::uint32_t tag;
  };

  std::uint32_t pick(std::uint32_t below) { return std::uniform_int_distribution<std::uint32_t>(0, below - 1)(random_); }
  std::uint32_t length() { return pick(3) == 0 ? pick(20'000) : pick(40); }

  void send() {
    if (other->incoming.size() >= 8 || inFlight >= 30) return;
    const std::uint32_t seed = pick(1 << 30);
    const Segment whole = memory(pick(3) == 0 ? pick(6000) : pick(200));
    fillPattern(whole, seed);
    const std::uint32_t cut = pick(whole.length + 1);
    const std::array segments{part(whole, 0, cut), part(whole, cut, whole.length - cut)};
    std::optional<std::uint32_t> invalidate;
    if (pick(4) == 0) invalidate = peer_.queues.advertise(memory(16), Access::remoteWrite).tag;
    self_.queues.postSend(1, segments, invalidate);
    other->incoming.push_back({whole.length, seed, invalidate.has_value()});
    ++inFlight;
  }

  /** With a Send behind it, after which the peer looks at the memory. */
  void write() {
    if (inFlight >= 30) return;
    const std::uint32_t seed = pick(1 << 30);
    const Segment source = memory(length());
    const Segment target = memory(source.length);
    fillPattern(source, seed);
    const RemoteAddress to = peer_.queues.advertise(target, Access::remoteWrite);
    self_.queues.postWrite(2, source, to);
    ++inFlight;
    written_.push_back({target, seed, to.tag});
  }

  void read() {
    if (inFlight >= 30) return;
    const std::uint32_t seed = pick(1 << 30);
    const Segment source = memory(length());
    fillPattern(source, seed);
    const RemoteAddress from = peer_.queues.advertise(source, Access::remoteRead);
    reads_.push_back({memory(source.length), seed, from.tag});
    self_.queues.postRead(3, reads_.back().into, from);
    ++inFlight;
  }

 public:
  /** All has been moved: the Writes must be in place. */
  void checkWrites() {
    for (const Reading& write : written_) {
      CHECK(hasPattern(write.into, write.seed));
      CHECK(peer_.queues.revoke(write.tag));
    }
    written_.clear();
  }

 private:
  Side& self_;
  Side& peer_;
  std::mt19937 random_;
  std::deque<Reading> reads_;
  std::deque<Reading> written_;
};

}  // namespace

TEST_SUITE_BEGIN("iwarp machines");

TEST_CASE("random histories end as asked for, whatever the sizes of frames and reads") {
  for (std::uint32_t seed = 1; seed <= 10; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&random](std::uint32_t limit) { return std::uniform_int_distribution<std::uint32_t>(0, limit - 1)(random); };
    const QueuePairOptions options{.sendDepth = 64, .receiveDepth = 16, .advertisementDepth = 512, .ird = 3, .ord = 3, .privateData = {}, .receives = {}};
    Side left(options, 128 + 4 * below(300), seed);
    Side right(options, seed % 3 == 0 ? 61'472 : 1448, seed + 1000);
    History ofLeft(left, right, seed * 2);
    History ofRight(right, left, seed * 2 + 1);
    ofLeft.other = &ofRight;
    ofRight.other = &ofLeft;
    for (int i = 0; i < 8; ++i) {
      ofLeft.postReceive();
      ofRight.postReceive();
    }
    for (int step = 0; step < 600; ++step) {
      ofLeft.step();
      ofRight.step();
      if (below(2) == 0) move(left, right, 1 + below(below(4) == 0 ? 70'000 : 300));
      if (below(2) == 0) move(right, left, 1 + below(below(4) == 0 ? 70'000 : 300));
      ofLeft.settle();
      ofRight.settle();
    }
    while (move(left, right, 1 << 20) + move(right, left, 1 << 20) > 0) {
    }
    ofLeft.settle();
    ofRight.settle();
    CHECK(ofLeft.inFlight == 0);
    CHECK(ofRight.inFlight == 0);
    CHECK(ofLeft.incoming.empty());
    CHECK(ofRight.incoming.empty());
    ofLeft.checkWrites();
    ofRight.checkWrites();
    CHECK_FALSE(left.queues.hasWork());
    CHECK(left.receiver.isIdle());
    CHECK(left.transmitter.isIdle());
  }
}

TEST_CASE("frames are no longer than they may be, and full ones have whole pages or words") {
  for (const std::size_t most : {128U, 536U, 1448U, 8948U, 61'472U}) {
    Side left({}, most, 1);
    const Segment source = memory(200'000);
    left.queues.postWrite(1, source, {5, 6});
    left.queues.postSend(2, std::array{source}, std::nullopt);
    Bytes stream;
    for (;;) {
      const auto parts = left.transmitter.gather(100'000);
      if (parts.empty()) break;
      std::size_t length = 0;
      for (const iovec& one : parts) {
        const auto* data = static_cast<const std::byte*>(one.iov_base);
        stream.insert(stream.end(), data, data + one.iov_len);
        length += one.iov_len;
      }
      left.transmitter.sent(length);
    }
    std::size_t total = 0;
    for (std::size_t at = 0; at < stream.size();) {
      SegmentHeader header;
      const std::size_t length = headerLength(stream[at + 2]);
      REQUIRE_FALSE(parseSegmentHeader(std::span(stream).subspan(at, length), header).has_value());
      const std::size_t inner = length + header.payloadLength;
      const std::size_t whole = inner + padLength(inner) + crcLength;
      CHECK(whole <= most);
      if (!header.last) CHECK(header.payloadLength % (most >= 8948 ? 4096 : 4) == 0);
      total += header.payloadLength;
      at += whole;
    }
    CHECK(total == 400'000);
  }
}

TEST_CASE("a Terminate goes out behind the rest of the frame that is on its way, and nothing else") {
  Side left({}, 1448, 1);
  const Segment source = memory(10'000);
  left.queues.postWrite(1, source, {5, 6});
  left.transmitter.gather(1);
  left.transmitter.sent(100);
  const Bytes payload = buildTerminate(terminate_code::crcError, {});
  std::size_t length = 0;
  Bytes last;
  for (const iovec& one : left.transmitter.gatherTerminate(payload)) {
    length += one.iov_len;
    const auto* data = static_cast<const std::byte*>(one.iov_base);
    last.insert(last.end(), data, data + one.iov_len);
  }
  CHECK(length == 1448 - 100 + 28);
  CHECK(hexOf(std::span(last).last(28).first(24)) == "001641470000000000000002000000010000000020020000");
}

TEST_CASE("more Reads than were agreed on break a rule, and none that is served counts") {
  Side left({.ird = 2, .privateData = {}, .receives = {}}, 1448, 1);
  const auto source = left.queues.advertise(memory(100), Access::remoteRead);
  const ReadRequest request{1, 2, 100, source.tag, source.address};
  CHECK_FALSE(left.queues.readRequested(request).has_value());
  CHECK_FALSE(left.queues.readRequested(request).has_value());
  const auto violation = left.queues.readRequested(request);
  REQUIRE(violation.has_value());
  CHECK(violation->code == terminate_code::untaggedNoBuffer);
  std::size_t length = 0;
  for (const iovec& one : left.transmitter.gather(1 << 20)) length += one.iov_len;
  left.transmitter.sent(length);
  CHECK_FALSE(left.queues.readRequested(request).has_value());
}

TEST_CASE("what is being read cannot be taken back without force, and is free when it was sent") {
  Side left({}, 1448, 1);
  const auto source = left.queues.advertise(memory(100), Access::remoteRead);
  CHECK_FALSE(left.queues.readRequested({1, 2, 50, source.tag, source.address}).has_value());
  CHECK_FALSE(left.queues.revoke(source.tag));
  const auto again = left.queues.readRequested({1, 2, 50, source.tag, source.address});
  REQUIRE(again.has_value());
  CHECK(again->code == terminate_code::invalidTag);
  std::size_t length = 0;
  for (const iovec& one : left.transmitter.gather(1 << 20)) length += one.iov_len;
  left.transmitter.sent(length);
  CHECK(left.queues.revoke(source.tag));
  CHECK(left.queues.revoke(source.tag));
}

TEST_CASE("a peer may not invalidate what is not in force, what it is reading, or a sink of a Read") {
  bool hasCaughtUp = false;
  WorkQueues queues({}, 1, [&hasCaughtUp] { hasCaughtUp = true; });
  queues.postReceive(1, memory(10));
  CHECK(queues.endMessage(0, 0x12345678)->code == terminate_code::cannotInvalidate);
  const auto source = queues.advertise(memory(100), Access::remoteRead);
  CHECK_FALSE(queues.readRequested({1, 2, 50, source.tag, source.address}).has_value());
  CHECK_FALSE(hasCaughtUp);
  CHECK(queues.endMessage(0, source.tag)->code == terminate_code::cannotInvalidate);
  CHECK(hasCaughtUp);
  queues.postRead(2, memory(10), {1, 1});
  Message message;
  while (queues.nextMessage(message) && message.type != MessageType::readRequest) {
  }
  CHECK(queues.endMessage(0, message.request.sinkTag)->code == terminate_code::cannotInvalidate);
  // Nor may the owner take it for one of its own.
  CHECK(queues.revoke(message.request.sinkTag));
  CHECK(queues.oldestRead().has_value());
}

TEST_CASE("posting checks segments and depths") {
  WorkQueues queues({.sendDepth = 1, .receiveDepth = 1, .advertisementDepth = 1, .privateData = {}, .receives = {}}, 1, [] {});
  const Segment good = memory(100);
  CHECK_THROWS_AS(queues.postReceive(1, {good.arena, 50, 51}), std::out_of_range);
  CHECK_THROWS_AS(queues.postReceive(1, {good.arena, 101, 0}), std::out_of_range);
  CHECK_THROWS_AS(queues.postReceive(1, {good.arena, 0xffffffff, 1}), std::out_of_range);
  CHECK_THROWS_AS(queues.postSend(1, std::array{Segment{nullptr, 0, 1}}, std::nullopt), std::out_of_range);
  CHECK_THROWS_AS(queues.postSend(1, {}, std::nullopt), std::length_error);
  CHECK_THROWS_AS(queues.postSend(1, std::array{good, good, good}, std::nullopt), std::length_error);
  CHECK_THROWS_AS(queues.postWrite(1, {good.arena, 1, 100}, {}), std::out_of_range);
  CHECK_THROWS_AS(queues.postRead(1, {good.arena, 1, 100}, {}), std::out_of_range);
  CHECK_THROWS_AS(queues.advertise({good.arena, 1, 100}, Access::remoteRead), std::out_of_range);
  queues.postReceive(1, good);
  CHECK_THROWS_AS(queues.postReceive(2, good), std::length_error);
  queues.postSend(1, std::array{good}, std::nullopt);
  CHECK_THROWS_AS(queues.postWrite(2, good, {}), std::length_error);
  CHECK_THROWS_AS(queues.postRead(2, good, {}), std::length_error);
  const auto advertised = queues.advertise(good, Access::remoteRead);
  CHECK_THROWS_AS(queues.advertise(good, Access::remoteRead), std::length_error);
  CHECK(queues.revoke(advertised.tag));
  queues.advertise(good, Access::remoteWrite);
  // Depth is free again when the completion has been handed over.
  Message message;
  REQUIRE(queues.nextMessage(message));
  queues.messageSent(message);
  CHECK_THROWS_AS(queues.postSend(2, std::array{good}, std::nullopt), std::length_error);
  std::vector<Completion> batch;
  queues.takeCompletions(batch);
  CHECK(batch.size() == 1);
  queues.postSend(2, std::array{good}, std::nullopt);
}

TEST_CASE("a flush completes each request once, and lets go of the memory") {
  WorkQueues queues({}, 1, [] {});
  std::vector<std::weak_ptr<Arena>> arenas;
  const auto tracked = [&arenas](std::uint32_t length) {
    Segment segment = memory(length);
    arenas.push_back(segment.arena);
    return segment;
  };
  queues.postReceive(1, tracked(10));
  queues.postSend(2, std::array{tracked(10)}, std::nullopt);
  queues.postWrite(3, tracked(20), {});
  for (std::uint32_t i = 0; i < 20; ++i) queues.postRead(10 + i, tracked(30), {});
  queues.advertise(tracked(5), Access::remoteRead);
  {
    Message message;
    for (int i = 0; i < 5; ++i) REQUIRE(queues.nextMessage(message));
  }
  queues.flush();
  for (const auto& arena : arenas) CHECK(arena.expired());
  std::vector<Completion> batch;
  queues.takeCompletions(batch);
  CHECK(batch.size() == 23);
  for (const Completion& completion : batch) CHECK(completion.status == Status::flushed);
  queues.postSend(4, std::array{memory(10)}, std::nullopt);
  CHECK_FALSE(queues.needsDelivery());
}

TEST_SUITE_END();

}  // namespace iserfs::test
