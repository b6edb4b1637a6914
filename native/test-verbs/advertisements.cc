/** What a peer may reach: exactly what is advertised to it, as long as it is. */
#include <doctest/doctest.h>

#include <cstring>

#include "endpoint.h"

namespace iserfs::rdma::test {

namespace {

enum class Victim { isTold, isNotToldBySiw };

/**
 * The target tried to reach memory that it must not: both ends end, and say why as far as their devices tell. siw (Linux 6.1) does not
 * say that a Terminate came, nor on the other side that a tag was unknown, and says what was wrong with an RDMA Read when the
 * connection is already closed; then only that it ended is seen.
 */
void expectViolation(Pair& pair, Victim told = Victim::isTold) {
  const auto violator = pair.target->waitClosed();
  const auto victim = pair.initiator->waitClosed();
  MESSAGE("violator: " << violator.text << "; victim: " << victim.text);
  CHECK(violator.text != "never closed");
  CHECK(victim.text != "never closed");
  if (!pair.isIwarp()) CHECK(violator.code == FailureCode::terminated);
  if (!pair.isIwarp() || told == Victim::isTold) CHECK(victim.code == FailureCode::peerViolation);
  for (const auto& end : {pair.initiator, pair.target}) CHECK(end->outOfOrder == 0);
}

bool isAllZero(const Endpoint& end, std::size_t offset, std::size_t length) {
  for (std::size_t i = 0; i < length; i++) {
    if (*end.at(offset + i) != std::byte{0}) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a write to memory that was taken back ends the connection and changes nothing") {
  REQUIRE_DEVICE();
  Pair pair;
  pair.target->fill(0, 4096, 1);
  const auto sink = pair.initiator->queuePair->advertise(pair.initiator->segment(0, 4096), Access::remoteWrite);
  pair.target->queuePair->postWrite(1, pair.target->segment(0, 4096), sink);
  CHECK(pair.target->waitCompleted(Opcode::write, 1).status == Status::success);
  pair.initiator->queuePair->postReceive(1, pair.initiator->segment(8192, 64));
  pair.target->queuePair->postSend(2, {}, std::nullopt);
  CHECK(pair.initiator->waitCompleted(Opcode::receive, 1).status == Status::success);

  pair.initiator->queuePair->revoke(sink.tag);
  std::memset(pair.initiator->at(0), 0, 4096);
  pair.target->queuePair->postWrite(3, pair.target->segment(0, 4096), sink);
  expectViolation(pair, Victim::isNotToldBySiw);
  CHECK(isAllZero(*pair.initiator, 0, 4096));
}

TEST_CASE("a read from memory that was taken back ends the connection") {
  REQUIRE_DEVICE();
  Pair pair;
  pair.initiator->fill(0, 4096, 1);
  const auto source = pair.initiator->queuePair->advertise(pair.initiator->segment(0, 4096), Access::remoteRead);
  pair.initiator->queuePair->revoke(source.tag);
  pair.target->queuePair->postRead(1, pair.target->segment(0, 4096), source);
  CHECK(pair.target->waitCompleted(Opcode::read, 1).status != Status::success);
  expectViolation(pair, Victim::isNotToldBySiw);
  CHECK(isAllZero(*pair.target, 0, 4096));
}

TEST_CASE("access beyond the bounds, or of the other kind, ends the connection") {
  REQUIRE_DEVICE();
  struct Attempt {
    const char* name;
    Access access;
    bool isWrite;
    std::int64_t shift;
    std::uint32_t length;
  };
  const Attempt attempts[] = {
      {"one byte beyond the end", Access::remoteWrite, true, 0, 4097},
      {"one byte before the beginning", Access::remoteWrite, true, -1, 16},
      {"in the middle of the arena", Access::remoteWrite, true, 100'000, 16},
      {"writing to what may be read", Access::remoteRead, true, 0, 16},
      {"reading beyond the end", Access::remoteRead, false, 4000, 97},
      {"reading what may be written", Access::remoteWrite, false, 0, 16},
  };
  for (const auto& attempt : attempts) {
    SUBCASE(attempt.name) {
      Pair pair;
      // siw (Linux 6.1) sends Read Responses without looking at the access that the region gives.
      if (pair.isIwarp() && !attempt.isWrite && attempt.access == Access::remoteWrite) return;
      pair.target->fill(0, 8192, 3);
      if (!attempt.isWrite) pair.initiator->fill(0, 65'536, 4);
      const auto given = pair.initiator->queuePair->advertise(pair.initiator->segment(8192, 4096), attempt.access);
      const RemoteAddress tried{given.tag, given.address + static_cast<std::uint64_t>(attempt.shift)};
      if (attempt.isWrite) {
        pair.target->queuePair->postWrite(1, pair.target->segment(0, attempt.length), tried);
      } else {
        pair.target->queuePair->postRead(1, pair.target->segment(16'384, attempt.length), tried);
      }
      expectViolation(pair, attempt.isWrite ? Victim::isTold : Victim::isNotToldBySiw);
      if (attempt.isWrite) {
        CHECK(isAllZero(*pair.initiator, 0, 8192));
        CHECK(isAllZero(*pair.initiator, 8192 + 4096, 100'000));
      }
      CHECK(isAllZero(*pair.target, 16'384, 4096));
    }
  }
}

TEST_CASE("what is advertised to one peer cannot be reached through another's connection") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  Pair victim(provider);
  Pair other(provider);
  const auto sink = victim.initiator->queuePair->advertise(victim.initiator->segment(0, 4096), Access::remoteWrite);
  // Bound for certain, before the other tries.
  victim.target->queuePair->postReceive(1, victim.target->segment(0, 64));
  victim.initiator->queuePair->postSend(1, {}, std::nullopt);
  CHECK(victim.target->waitCompleted(Opcode::receive, 1).status == Status::success);

  other.target->fill(0, 4096, 9);
  other.target->queuePair->postWrite(1, other.target->segment(0, 4096), sink);
  expectViolation(other);
  CHECK(isAllZero(*victim.initiator, 0, 4096));
  // The rightful peer is not disturbed.
  victim.target->fill(0, 4096, 4);
  victim.target->queuePair->postWrite(2, victim.target->segment(0, 4096), sink);
  victim.initiator->queuePair->postReceive(2, victim.initiator->segment(8192, 64));
  victim.target->queuePair->postSend(3, {}, std::nullopt);
  CHECK(victim.initiator->waitCompleted(Opcode::receive, 2).status == Status::success);
  CHECK(victim.initiator->holds(0, 4096, 4));
}

TEST_CASE("Send with Invalidate revokes a tag, again and again") {
  REQUIRE_DEVICE();
  Pair pair;
  auto& initiator = *pair.initiator;
  auto& target = *pair.target;
  RemoteAddress sink;
  std::uint32_t reported = 0;
  for (std::uint32_t i = 0; i < 300; i++) {
    target.fill(0, 512, i);
    initiator.queuePair->postReceive(i, initiator.segment(8192, 64));
    sink = initiator.queuePair->advertise(initiator.segment(0, 512), Access::remoteWrite);
    target.queuePair->postWrite(i, target.segment(0, 512), sink);
    target.queuePair->postSend(i, {}, sink.tag);
    const auto received = initiator.waitCompleted(Opcode::receive, i);
    REQUIRE(received.status == Status::success);
    REQUIRE(initiator.holds(0, 512, i));
    if (received.hasInvalidated) {
      CHECK(received.invalidatedTag == sink.tag);
      reported++;
    }
    initiator.queuePair->revoke(sink.tag);
    REQUIRE(target.waitCompleted(Opcode::send, i).status == Status::success);
    for (auto* end : {&initiator, &target}) {
      const std::lock_guard lock(end->mutex);
      end->completions.clear();
    }
  }
  MESSAGE(reported << " of 300 invalidations were reported with the message");
  if (pair.hasWindows()) CHECK(reported == 300);
  std::memset(initiator.at(0), 0, 512);
  target.queuePair->postWrite(1000, target.segment(0, 512), sink);
  expectViolation(pair, Victim::isNotToldBySiw);
  CHECK(isAllZero(initiator, 0, 512));
}

TEST_CASE("advertising and taking back at once, often, does not disturb the connection") {
  REQUIRE_DEVICE();
  Pair pair;
  auto& initiator = *pair.initiator;
  for (int i = 0; i < 1000; i++) {
    const auto given = initiator.queuePair->advertise(initiator.segment(0, 4096), Access::remoteWrite);
    initiator.queuePair->revoke(given.tag);
    initiator.queuePair->revoke(given.tag);
  }
  initiator.queuePair->revoke(0x12345678);
  pair.target->queuePair->postReceive(1, pair.target->segment(0, 64));
  initiator.queuePair->postSend(1, {}, std::nullopt);
  CHECK(pair.target->waitCompleted(Opcode::receive, 1).status == Status::success);
}

}  // namespace iserfs::rdma::test
