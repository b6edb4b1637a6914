/** Two queue pairs of the software provider, connected through loopback: what verbs promise. */
#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "support.h"

namespace iserfs::test {

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
  const auto received = pair.responder.events->next();
  REQUIRE(received.has_value());
  CHECK(received->workRequestId == 7);
  CHECK(received->opcode == Opcode::receive);
  CHECK(received->status == Status::success);
  CHECK(received->byteLength == 100);
  CHECK_FALSE(received->hasInvalidated);
  CHECK(hasPattern(part(into, 0, 100), 1));
}

TEST_CASE("an RDMA Write is in place before the Send behind it arrives") {
  Pair pair;
  const Segment target = memory(1 << 20);
  const Segment source = memory(1 << 20);
  fillPattern(source, 2);
  const auto to = pair.responder.queuePair->advertise(target, Access::remoteWrite);
  pair.responder.queuePair->postReceive(1, memory(16));
  pair.initiator.queuePair->postWrite(2, source, to);
  pair.initiator.queuePair->postSend(3, std::array{part(source, 0, 4)}, std::nullopt);
  REQUIRE(pair.responder.events->next(Opcode::receive).has_value());
  CHECK(hasPattern(target, 2));
}

TEST_CASE("an RDMA Read fetches what was advertised") {
  Pair pair;
  const Segment source = memory(1 << 20);
  const Segment sink = memory(1 << 20);
  fillPattern(source, 3);
  const auto from = pair.initiator.queuePair->advertise(source, Access::remoteRead);
  pair.responder.queuePair->postRead(9, sink, from);
  const auto read = pair.responder.events->next(Opcode::read);
  REQUIRE(read.has_value());
  CHECK(read->workRequestId == 9);
  CHECK(read->status == Status::success);
  CHECK(read->byteLength == 1 << 20);
  CHECK(hasPattern(sink, 3));
}

TEST_SUITE_END();

}  // namespace iserfs::test
