/** Two queue pairs of the software provider, connected through loopback: what verbs promise. */
#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <random>
#include <thread>

#include "support.h"

namespace iserfs::test {

namespace {

QueuePairOptions options(std::uint16_t ird, std::uint16_t ord, bool crc = true) {
  QueuePairOptions wanted;
  wanted.ird = ird;
  wanted.ord = ord;
  wanted.crc = crc;
  return wanted;
}

void expectOrderlyEnd(End& end) {
  const auto failure = end.events->waitClosed();
  REQUIRE(failure.has_value());
  CHECK_MESSAGE(failure->code == FailureCode::none, failure->text);
  CHECK_FALSE(end.events->hasBrokenOrder());
}

}  // namespace

TEST_SUITE_BEGIN("iwarp queue pair");

TEST_CASE("a Send arrives in the oldest posted receive, with its length") {
  Pair pair;
  const Segment into = memory(4096);
  const Segment from = memory(100);
  fillPattern(from, 1);
  pair.responder.queuePair->postReceive(7, into);
  pair.initiator.queuePair->postSend(8, std::array{from}, std::nullopt);
  const auto sent = pair.initiator.events->next();
  REQUIRE(sent.has_value());
  CHECK(sent->workRequestId == 8);
  CHECK(sent->opcode == Opcode::send);
  CHECK(sent->status == Status::success);
  CHECK(sent->byteLength == 100);
  const auto received = pair.responder.events->next();
  REQUIRE(received.has_value());
  CHECK(received->workRequestId == 7);
  CHECK(received->opcode == Opcode::receive);
  CHECK(received->status == Status::success);
  CHECK(received->byteLength == 100);
  CHECK_FALSE(received->hasInvalidated);
  CHECK(hasPattern(part(into, 0, 100), 1));
}

TEST_CASE("what is posted while corked goes out when it is uncorked, and completes in order whichever thread tells") {
  Pair pair;
  const Segment from = memory(64);
  // Two threads receive.
  const std::array<std::pair<std::shared_ptr<QueuePair>, Segment>, 2> ends{
      {{pair.initiator.queuePair, memory(64)}, {pair.responder.queuePair, memory(64)}}};
  for (std::uint32_t round = 0; round < 200; ++round) {
    // Both ways, so that receives complete on the loop's thread while Sends do on this one.
    for (const auto& [queuePair, into] : ends) {
      queuePair->cork();
      for (std::uint32_t i = 0; i < 4; ++i) queuePair->postReceive(round * 4 + i, into);
    }
    for (const auto& [queuePair, into] : ends) {
      for (std::uint32_t i = 0; i < 4; ++i) queuePair->postSend(round * 4 + i, std::array{from}, std::nullopt);
    }
    for (const auto& [queuePair, into] : ends) queuePair->uncork();
    for (End* end : {&pair.initiator, &pair.responder}) {
      std::uint32_t sends = 0;
      std::uint32_t receives = 0;
      while (sends + receives < 8) {
        const auto completion = end->events->next();
        REQUIRE(completion.has_value());
        REQUIRE(completion->status == Status::success);
        std::uint32_t& due = completion->opcode == Opcode::receive ? receives : sends;
        REQUIRE(completion->workRequestId == round * 4 + due);
        ++due;
      }
    }
  }
}

TEST_CASE("a connection that is closed while it is corked completes what was posted") {
  Pair pair;
  const Segment from = memory(64);
  pair.initiator.queuePair->cork();
  pair.initiator.queuePair->postReceive(1, from);
  pair.initiator.queuePair->postSend(2, std::array{from}, std::nullopt);
  pair.initiator.queuePair->close(CloseMode::abrupt);
  pair.initiator.queuePair->uncork();
  REQUIRE(pair.initiator.events->next().has_value());
  REQUIRE(pair.initiator.events->next().has_value());
  REQUIRE(pair.initiator.events->waitClosed().has_value());
  CHECK_FALSE(pair.initiator.events->hasBrokenOrder());
}

TEST_CASE("receives that were asked for with the connection are there from the first message on") {
  QueuePairOptions ofResponder;
  const Segment into = memory(64);
  ofResponder.receives = {{5, into}};
  Pair pair({}, ofResponder);
  const Segment from = memory(64);
  fillPattern(from, 2);
  pair.initiator.queuePair->postSend(1, std::array{part(from, 0, 10), part(from, 10, 54)}, std::nullopt);
  const auto received = pair.responder.events->next();
  REQUIRE(received.has_value());
  CHECK(received->workRequestId == 5);
  CHECK(hasPattern(into, 2));
}

TEST_CASE("the responder may speak first") {
  Pair pair;
  const Segment into = memory(8);
  pair.initiator.queuePair->postReceive(1, into);
  const Segment from = memory(8);
  fillPattern(from, 3);
  pair.responder.queuePair->postSend(2, std::array{from}, std::nullopt);
  REQUIRE(pair.initiator.events->next(Opcode::receive).has_value());
  CHECK(hasPattern(into, 3));
}

TEST_CASE("an RDMA Write is in place before the Send behind it arrives") {
  for (const bool crc : {true, false}) {
    Pair pair(options(16, 16, crc));
    const Segment target = memory(1 << 20);
    const Segment source = memory(1 << 20);
    fillPattern(source, 2);
    const auto to = pair.responder.queuePair->advertise(target, Access::remoteWrite);
    pair.responder.queuePair->postReceive(1, memory(16));
    pair.initiator.queuePair->postWrite(2, source, to);
    pair.initiator.queuePair->postSend(3, std::array{part(source, 0, 4)}, std::nullopt);
    REQUIRE(pair.responder.events->next(Opcode::receive).has_value());
    CHECK(hasPattern(target, 2));
    pair.responder.queuePair->revoke(to.tag);
    CHECK_FALSE(pair.responder.events->isClosed());
  }
}

TEST_CASE("a Write of nothing needs no valid tag") {
  Pair pair;
  pair.initiator.queuePair->postWrite(1, memory(0), {0xdeadbeef, 42});
  pair.initiator.queuePair->postWrite(2, Segment{}, {});
  pair.responder.queuePair->postReceive(3, memory(4));
  pair.initiator.queuePair->postSend(4, std::array{memory(4)}, std::nullopt);
  REQUIRE(pair.responder.events->next(Opcode::receive).has_value());
  CHECK(pair.initiator.events->next()->opcode == Opcode::write);
  CHECK(pair.initiator.events->next()->opcode == Opcode::write);
}

TEST_CASE("an RDMA Read fetches what was advertised, and more of them wait by themselves than may be outstanding") {
  Pair pair(options(2, 16), options(16, 16));
  CHECK(pair.responder.events->waitEstablished()->ord == 2);
  CHECK(pair.initiator.events->waitEstablished()->ird == 2);
  const Segment source = memory(1 << 20);
  fillPattern(source, 3);
  const auto from = pair.initiator.queuePair->advertise(source, Access::remoteRead);
  std::vector<Segment> sinks;
  for (std::uint32_t i = 0; i < 20; ++i) {
    sinks.push_back(memory(1 << 20));
    pair.responder.queuePair->postRead(i, sinks.back(), from);
  }
  // A Send is not held up by Reads that wait.
  pair.initiator.queuePair->postReceive(99, memory(4));
  pair.responder.queuePair->postSend(100, std::array{memory(4)}, std::nullopt);
  for (std::uint32_t i = 0; i < 20; ++i) {
    const auto read = pair.responder.events->next(Opcode::read);
    REQUIRE(read.has_value());
    CHECK(read->workRequestId == i);
    CHECK(read->status == Status::success);
    CHECK(read->byteLength == 1 << 20);
    CHECK(hasPattern(sinks[i], 3));
  }
  CHECK(pair.initiator.events->next(Opcode::receive).has_value());
  pair.initiator.queuePair->revoke(from.tag);
  CHECK_FALSE(pair.initiator.events->isClosed());
}

TEST_CASE("a Read where the peer grants none fails, and ends the connection") {
  Pair pair(options(0, 0));
  CHECK(pair.responder.events->waitEstablished()->ord == 0);
  pair.responder.queuePair->postRead(1, memory(10), {1, 1});
  const auto read = pair.responder.events->next(Opcode::read);
  REQUIRE(read.has_value());
  CHECK(read->status == Status::failed);
  const auto failure = pair.responder.events->waitClosed();
  REQUIRE(failure.has_value());
  CHECK(failure->code == FailureCode::unsupported);
}

TEST_CASE("a Send with Invalidate revokes the tag and says which") {
  Pair pair;
  Segment target = memory(64);
  const std::weak_ptr<Arena> arena = target.arena;
  const auto to = pair.responder.queuePair->advertise(target, Access::remoteWrite);
  target = Segment{};
  pair.responder.queuePair->postReceive(1, memory(4));
  pair.initiator.queuePair->postSend(2, std::array{memory(4)}, to.tag);
  const auto received = pair.responder.events->next(Opcode::receive);
  REQUIRE(received.has_value());
  CHECK(received->hasInvalidated);
  CHECK(received->invalidatedTag == to.tag);
  CHECK(arena.expired());
  pair.responder.queuePair->revoke(to.tag);
  pair.initiator.queuePair->postWrite(3, memory(4), to);
  const auto failure = pair.responder.events->waitClosed();
  REQUIRE(failure.has_value());
  CHECK(failure->code == FailureCode::peerViolation);
  CHECK(failure->text.find("not in force") != std::string::npos);
  const auto told = pair.initiator.events->waitClosed();
  REQUIRE(told.has_value());
  CHECK(told->code == FailureCode::terminated);
  CHECK(told->text.find("invalid STag") != std::string::npos);
}

TEST_CASE("access beyond what was advertised ends the connection, and touches nothing") {
  struct Attempt {
    const char* name;
    std::function<void(Pair&, RemoteAddress writable, RemoteAddress readable)> make;
    const char* words;
  };
  const std::array<Attempt, 6> attempts{{
      {"beyond the end", [](Pair& pair, RemoteAddress to, RemoteAddress) {
         pair.initiator.queuePair->postWrite(1, memory(10), {to.tag, to.address + 91});
       }, "out of the bounds"},
      {"before the start", [](Pair& pair, RemoteAddress to, RemoteAddress) {
         pair.initiator.queuePair->postWrite(1, memory(10), {to.tag, to.address - 1});
       }, "out of the bounds"},
      {"a Write to what may be read", [](Pair& pair, RemoteAddress, RemoteAddress from) {
         pair.initiator.queuePair->postWrite(1, memory(10), from);
       }, "does not allow"},
      {"a Read of what may be written", [](Pair& pair, RemoteAddress to, RemoteAddress) {
         pair.initiator.queuePair->postRead(1, memory(10), to);
       }, "does not allow"},
      {"a Read beyond the end", [](Pair& pair, RemoteAddress, RemoteAddress from) {
         pair.initiator.queuePair->postRead(1, memory(101), from);
       }, "out of the bounds"},
      {"a tag that nobody gave", [](Pair& pair, RemoteAddress to, RemoteAddress) {
         pair.initiator.queuePair->postWrite(1, memory(10), {to.tag ^ 0x80, to.address});
       }, "not in force"},
  }};
  for (const Attempt& attempt : attempts) {
    INFO(attempt.name);
    Pair pair;
    const Segment all = memory(300);
    const auto to = pair.responder.queuePair->advertise(part(all, 100, 100), Access::remoteWrite);
    const auto from = pair.responder.queuePair->advertise(part(all, 100, 100), Access::remoteRead);
    attempt.make(pair, to, from);
    const auto failure = pair.responder.events->waitClosed();
    REQUIRE(failure.has_value());
    CHECK(failure->code == FailureCode::peerViolation);
    CHECK_MESSAGE(failure->text.find(attempt.words) != std::string::npos, failure->text);
    const auto told = pair.initiator.events->waitClosed();
    REQUIRE(told.has_value());
    CHECK_MESSAGE(told->code == FailureCode::terminated, told->text);
    CHECK(isFilledWith(all, std::byte{0}));
  }
}

TEST_CASE("a tag means nothing to another connection") {
  Pair one;
  Pair other;
  const auto to = one.responder.queuePair->advertise(memory(100), Access::remoteWrite);
  other.initiator.queuePair->postWrite(1, memory(10), to);
  const auto failure = other.responder.events->waitClosed();
  REQUIRE(failure.has_value());
  CHECK(failure->code == FailureCode::peerViolation);
  CHECK_FALSE(one.responder.events->isClosed());
}

TEST_CASE("a refused Read completes as failed, what is behind it as flushed") {
  Pair pair;
  pair.initiator.queuePair->postReceive(5, memory(10));
  pair.initiator.queuePair->postRead(1, memory(10), {0x1234, 1});
  const auto read = pair.initiator.events->next(Opcode::read);
  REQUIRE(read.has_value());
  CHECK(read->status == Status::failed);
  const auto receive = pair.initiator.events->next(Opcode::receive);
  REQUIRE(receive.has_value());
  CHECK(receive->status == Status::flushed);
  CHECK(pair.initiator.events->waitClosed()->code == FailureCode::terminated);
}

TEST_CASE("a message without a posted receive, or too long for it, ends the connection") {
  Pair without;
  without.initiator.queuePair->postSend(1, std::array{memory(4)}, std::nullopt);
  CHECK(without.responder.events->waitClosed()->text.find("no receive was posted") != std::string::npos);
  CHECK(without.initiator.events->waitClosed()->text.find("no buffer") != std::string::npos);
  Pair tooLong;
  tooLong.responder.queuePair->postReceive(2, memory(99));
  tooLong.initiator.queuePair->postSend(1, std::array{memory(100)}, std::nullopt);
  const auto receive = tooLong.responder.events->next(Opcode::receive);
  REQUIRE(receive.has_value());
  CHECK(receive->status == Status::failed);
  CHECK(tooLong.responder.events->waitClosed()->code == FailureCode::peerViolation);
  CHECK(tooLong.initiator.events->waitClosed()->text.find("too long") != std::string::npos);
}

TEST_CASE("an orderly close sends what is posted, answers Reads, and both ends learn that it was one") {
  Pair pair;
  const Segment source = memory(4 << 20);
  fillPattern(source, 9);
  const Segment target = memory(4 << 20);
  const auto to = pair.responder.queuePair->advertise(target, Access::remoteWrite);
  const Segment last = memory(4);
  pair.responder.queuePair->postReceive(1, last);
  pair.responder.queuePair->postReceive(2, memory(4));
  pair.initiator.queuePair->postReceive(3, memory(4));
  pair.initiator.queuePair->postWrite(4, source, to);
  pair.initiator.queuePair->postSend(5, std::array{part(source, 0, 4)}, std::nullopt);
  pair.initiator.queuePair->close(CloseMode::orderly);
  pair.initiator.queuePair->postSend(6, std::array{part(source, 0, 4)}, std::nullopt);
  expectOrderlyEnd(pair.initiator);
  expectOrderlyEnd(pair.responder);
  CHECK(hasPattern(target, 9));
  CHECK(hasPattern(last, 9));
  std::vector<std::pair<std::uint32_t, Status>> sent;
  while (const auto completion = pair.initiator.events->next()) sent.emplace_back(completion->workRequestId, completion->status);
  CHECK(sent.size() == 4);
  for (const auto& [id, status] : sent) CHECK(status == (id <= 3 || id == 6 ? Status::flushed : Status::success));
  CHECK(pair.responder.events->next()->status == Status::success);
  CHECK(pair.responder.events->next()->status == Status::flushed);
  CHECK_FALSE(pair.responder.events->next().has_value());
}

TEST_CASE("both ends may close at the same time, and more than once") {
  Pair pair;
  pair.initiator.queuePair->close(CloseMode::orderly);
  pair.responder.queuePair->close(CloseMode::orderly);
  pair.initiator.queuePair->close(CloseMode::orderly);
  expectOrderlyEnd(pair.initiator);
  expectOrderlyEnd(pair.responder);
  pair.initiator.queuePair->close(CloseMode::abrupt);
  pair.initiator.queuePair->postReceive(1, memory(4));
  CHECK_FALSE(pair.initiator.events->next().has_value());
}

TEST_CASE("an abrupt close flushes everything, lets go of all memory, and is a reset to the peer") {
  Pair pair;
  std::vector<std::weak_ptr<Arena>> arenas;
  const auto tracked = [&arenas](std::uint32_t length) {
    Segment segment = memory(length);
    arenas.push_back(segment.arena);
    return segment;
  };
  // More than fits into the socket: the peer is kept from reading by its being asked for memory that it does not write to at once.
  const auto to = pair.responder.queuePair->advertise(memory(8 << 20), Access::remoteWrite);
  for (std::uint32_t i = 0; i < 10; ++i) pair.initiator.queuePair->postReceive(i, tracked(100));
  for (std::uint32_t i = 10; i < 40; ++i) pair.initiator.queuePair->postWrite(i, tracked(8 << 20), to);
  pair.initiator.queuePair->advertise(tracked(100), Access::remoteRead);
  pair.initiator.queuePair->close(CloseMode::abrupt);
  expectOrderlyEnd(pair.initiator);
  unsigned count = 0;
  while (pair.initiator.events->next()) ++count;
  CHECK(count == 40);
  for (const auto& arena : arenas) CHECK(arena.expired());
  const auto failure = pair.responder.events->waitClosed();
  REQUIRE(failure.has_value());
  CHECK(failure->code != FailureCode::peerViolation);
}

TEST_CASE("letting go of a queue pair closes it") {
  Pair pair;
  pair.initiator.queuePair.reset();
  CHECK(pair.initiator.events->waitClosed().has_value());
  CHECK(pair.responder.events->waitClosed().has_value());
}

TEST_CASE("letting go of a provider closes what it has, and nothing else") {
  Pair pair;
  Pair other;
  pair.responderProvider.reset();
  CHECK(pair.responder.events->isClosed());
  CHECK(pair.initiator.events->waitClosed().has_value());
  CHECK_FALSE(other.responder.events->isClosed());
  pair.responder.queuePair->postSend(1, std::array{memory(4)}, std::nullopt);
  pair.responder.queuePair->close(CloseMode::orderly);
  other.responder.queuePair->postReceive(1, memory(4));
  other.initiator.queuePair->postSend(1, std::array{memory(4)}, std::nullopt);
  CHECK(other.responder.events->next().has_value());
}

TEST_CASE("memory that is being written to can be taken back at any moment, and is not written to afterwards") {
  std::mt19937 random(11);
  for (int round = 0; round < 12; ++round) {
    Pair pair;
    const Segment target = memory(16 << 20);
    const auto to = pair.responder.queuePair->advertise(target, Access::remoteWrite);
    const Segment source = memory(16 << 20);
    fillPattern(source, 5);
    for (std::uint32_t i = 0; i < 8; ++i) pair.initiator.queuePair->postWrite(i, source, to);
    std::this_thread::sleep_for(std::chrono::microseconds(std::uniform_int_distribution(0, 8000)(random)));
    pair.responder.queuePair->revoke(to.tag);
    // From here on the memory is the owner's: under ThreadSanitizer any placement would be a race with this.
    std::fill_n(target.data(), target.length, std::byte{0x5a});
    CHECK(pair.responder.events->waitClosed().has_value());
    CHECK(isFilledWith(target, std::byte{0x5a}));
  }
}

TEST_CASE("memory that is being read can be taken back at any moment, and is not read afterwards") {
  std::mt19937 random(12);
  for (int round = 0; round < 12; ++round) {
    Pair pair;
    const Segment source = memory(16 << 20);
    const auto from = pair.initiator.queuePair->advertise(source, Access::remoteRead);
    const Segment sink = memory(16 << 20);
    for (std::uint32_t i = 0; i < 8; ++i) pair.responder.queuePair->postRead(i, sink, from);
    std::this_thread::sleep_for(std::chrono::microseconds(std::uniform_int_distribution(0, 8000)(random)));
    pair.initiator.queuePair->revoke(from.tag);
    std::fill_n(source.data(), source.length, std::byte{0x5a});
    const auto failure = pair.initiator.events->waitClosed();
    REQUIRE(failure.has_value());
    const auto atReader = pair.responder.events->waitClosed();
    REQUIRE(atReader.has_value());
    while (const auto read = pair.responder.events->next()) {
      // What was read completely was read before.
      if (read->status == Status::success) CHECK(read->byteLength == sink.length);
    }
  }
}

TEST_CASE("random messages between busy ends arrive in order and whole") {
  std::mt19937 random(21);
  Pair pair(options(4, 4), options(4, 4));
  constexpr std::uint32_t messages = 400;
  constexpr std::uint32_t window = 32;
  const auto run = [&](End& self, End& peer, std::uint32_t seedBase) {
    std::vector<Segment> receives;
    for (std::uint32_t i = 0; i < messages; ++i) receives.push_back(memory(9000));
    for (std::uint32_t i = 0; i < messages && i < 200; ++i) peer.queuePair->postReceive(i, receives[i]);
    std::vector<std::uint32_t> lengths;
    for (std::uint32_t i = 0; i < messages; ++i) lengths.push_back(std::uniform_int_distribution<std::uint32_t>(0, 9000)(random));
    std::uint32_t inFlight = 0;
    std::uint32_t received = 0;
    const auto takeReceive = [&] {
      const auto completion = peer.events->next(Opcode::receive);
      REQUIRE(completion.has_value());
      REQUIRE(completion->status == Status::success);
      CHECK(completion->workRequestId == received);
      CHECK(completion->byteLength == lengths[received]);
      CHECK(hasPattern(part(receives[received], 0, lengths[received]), seedBase + received));
      if (received + 200 < messages) peer.queuePair->postReceive(received + 200, receives[received + 200]);
      ++received;
      --inFlight;
    };
    for (std::uint32_t i = 0; i < messages; ++i) {
      const Segment message = memory(lengths[i]);
      fillPattern(message, seedBase + i);
      self.queuePair->postSend(i, std::array{message}, std::nullopt);
      if (++inFlight == window) takeReceive();
    }
    while (inFlight > 0) takeReceive();
  };
  run(pair.initiator, pair.responder, 1000);
  run(pair.responder, pair.initiator, 5000);
  CHECK_FALSE(pair.initiator.events->hasBrokenOrder());
  CHECK_FALSE(pair.responder.events->hasBrokenOrder());
}

TEST_CASE("Writes and Reads in both directions at once do not stand in each other's way") {
  Pair pair(options(8, 8), options(8, 8));
  constexpr std::uint32_t length = 700'001;
  struct Transfer {
    Segment from = memory(length);
    Segment to = memory(length);
  };
  std::vector<Transfer> writes(8);
  std::vector<Transfer> reads(8);
  for (std::uint32_t i = 0; i < 8; ++i) {
    End& self = i % 2 == 0 ? pair.initiator : pair.responder;
    End& peer = i % 2 == 0 ? pair.responder : pair.initiator;
    fillPattern(writes[i].from, 100 + i);
    fillPattern(reads[i].from, 200 + i);
    const auto to = peer.queuePair->advertise(writes[i].to, Access::remoteWrite);
    const auto from = peer.queuePair->advertise(reads[i].from, Access::remoteRead);
    self.queuePair->postWrite(i, writes[i].from, to);
    self.queuePair->postRead(i, reads[i].to, from);
    peer.queuePair->postReceive(i, memory(1));
    self.queuePair->postSend(i, std::array{memory(1)}, std::nullopt);
  }
  for (std::uint32_t i = 0; i < 4; ++i) {
    for (End* end : {&pair.initiator, &pair.responder}) {
      REQUIRE(end->events->next(Opcode::read).has_value());
      REQUIRE(end->events->next(Opcode::receive).has_value());
    }
  }
  for (std::uint32_t i = 0; i < 8; ++i) {
    CHECK(hasPattern(writes[i].to, 100 + i));
    CHECK(hasPattern(reads[i].to, 200 + i));
  }
}

TEST_SUITE_END();

}  // namespace iserfs::test
