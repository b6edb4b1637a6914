/** Messages, RDMA Writes and RDMA Reads between two ends. */
#include <doctest/doctest.h>

#include <array>

#include "endpoint.h"

namespace iserfs::rdma::test {

namespace {

void send(Endpoint& from, std::uint32_t id, std::vector<Segment> segments, std::optional<std::uint32_t> invalidate = std::nullopt) {
  from.queuePair->postSend(id, segments, invalidate);
}

}  // namespace

TEST_CASE("a connection says what it is") {
  REQUIRE_DEVICE();
  PairOptions options;
  options.initiator.ird = 8;
  options.initiator.ord = 4;
  options.initiator.privateData = bytesOf("from the initiator");
  options.target.ird = 6;
  options.target.ord = 16;
  options.target.privateData = bytesOf("from the target");
  Pair pair(options);

  const auto& initiator = *pair.initiator->facts;
  const auto& target = *pair.target->facts;
  MESSAGE(initiator.device << " " << initiator.fabric << " " << initiator.localAddress << " -> " << initiator.remoteAddress << ", initiator ird "
                           << initiator.ird << " ord " << initiator.ord << ", target ird " << target.ird << " ord " << target.ord << ", protection "
                           << (pair.hasWindows() ? "window" : "region"));
  CHECK(initiator.device == target.device);
  CHECK(listVerbsDevices().front().name == initiator.device);
  CHECK(listVerbsDevices().front().fabric == initiator.fabric);
  CHECK_FALSE(initiator.crc.has_value());
  CHECK(initiator.remoteAddress == pair.listener->localAddress());
  CHECK(initiator.localAddress == target.remoteAddress);
  CHECK(target.localAddress == pair.listener->localAddress());
  CHECK(initiator.ird <= 8);
  CHECK(initiator.ord == 4);
  CHECK(target.ird >= 4);
  CHECK(target.ord == 8);
  const auto expectData = [](const std::vector<std::byte>& got, const std::string& want) {
    REQUIRE(got.size() >= want.size());
    CHECK(std::vector<std::byte>(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(want.size())) == bytesOf(want));
    for (std::size_t i = want.size(); i < got.size(); i++) CHECK(got[i] == std::byte{0});
  };
  expectData(target.privateData, "from the initiator");
  expectData(initiator.privateData, "from the target");
}

TEST_CASE("messages arrive whole and in order, whatever their length") {
  REQUIRE_DEVICE();
  const std::array<std::size_t, 8> lengths{0, 1, 27, 76, 128, 129, 4097, 8192};
  PairOptions options;
  auto& receives = options.target.receives;
  const auto landing = std::make_shared<Endpoint>();
  for (std::uint32_t i = 0; i < lengths.size(); i++) receives.push_back({100 + i, landing->segment(i * 8192, 8192)});
  Pair pair(options);
  for (std::uint32_t i = 0; i < lengths.size(); i++) {
    pair.initiator->fill(i * 8192, lengths[i], i);
    const auto first = lengths[i] / 3;
    send(*pair.initiator, i, {pair.initiator->segment(i * 8192, first), pair.initiator->segment(i * 8192 + first, lengths[i] - first)});
  }
  for (std::uint32_t i = 0; i < lengths.size(); i++) {
    const auto received = pair.target->waitCompleted(Opcode::receive, 100 + i);
    CHECK(received.status == Status::success);
    CHECK(received.byteLength == lengths[i]);
    CHECK_FALSE(received.hasInvalidated);
    CHECK(landing->holds(i * 8192, lengths[i], i));
    const auto sent = pair.initiator->waitCompleted(Opcode::send, i);
    CHECK(sent.status == Status::success);
    CHECK(sent.byteLength == lengths[i]);
  }
  const std::lock_guard lock(pair.target->mutex);
  for (std::uint32_t i = 0; i < lengths.size(); i++) CHECK(pair.target->completions[i].workRequestId == 100 + i);
}

TEST_CASE("both ends exchange hundreds of messages, one at a time") {
  REQUIRE_DEVICE();
  Pair pair;
  constexpr std::uint32_t rounds = 500;
  pair.initiator->queuePair->postReceive(0, pair.initiator->segment(0, 64));
  pair.target->queuePair->postReceive(0, pair.target->segment(0, 64));
  for (std::uint32_t i = 0; i < rounds; i++) {
    pair.initiator->fill(4096, 48, i);
    send(*pair.initiator, i, {pair.initiator->segment(4096, 48)});
    REQUIRE(pair.target->waitCompleted(Opcode::receive, i).status == Status::success);
    REQUIRE(pair.target->holds(0, 48, i));
    pair.target->queuePair->postReceive(i + 1, pair.target->segment(0, 64));
    send(*pair.target, i, {pair.target->segment(0, 48)});
    REQUIRE(pair.initiator->waitCompleted(Opcode::receive, i).status == Status::success);
    pair.initiator->queuePair->postReceive(i + 1, pair.initiator->segment(0, 64));
    for (auto* end : {pair.initiator.get(), pair.target.get()}) {
      REQUIRE(end->waitCompleted(Opcode::send, i).status == Status::success);
      const std::lock_guard lock(end->mutex);
      end->completions.clear();
    }
  }
}

TEST_CASE("an RDMA Write lands where it was advertised, an RDMA Read fetches from there") {
  REQUIRE_DEVICE();
  Pair pair;
  pair.target->fill(0, 10'000, 1);
  const auto sink = pair.initiator->queuePair->advertise(pair.initiator->segment(4099, 10'000), Access::remoteWrite);
  CHECK(sink.address < (std::uint64_t{1} << 53));
  pair.target->queuePair->postWrite(1, pair.target->segment(0, 10'000), sink);
  CHECK(pair.target->waitCompleted(Opcode::write, 1).status == Status::success);

  pair.initiator->fill(50'001, 9'999, 2);
  const auto source = pair.initiator->queuePair->advertise(pair.initiator->segment(50'001, 9'999), Access::remoteRead);
  pair.target->queuePair->postRead(2, pair.target->segment(20'000, 9'999), source);
  const auto read = pair.target->waitCompleted(Opcode::read, 2);
  CHECK(read.status == Status::success);
  CHECK(read.byteLength == 9'999);
  CHECK(pair.target->holds(20'000, 9'999, 2));
  // The Read came after the Write, so that has landed, too.
  CHECK(pair.initiator->holds(4099, 10'000, 1));
}

TEST_CASE("an empty RDMA Write needs no valid tag") {
  REQUIRE_DEVICE();
  Pair pair;
  pair.initiator->queuePair->postReceive(1, pair.initiator->segment(0, 64));
  pair.target->queuePair->postWrite(1, pair.target->segment(0, 0), {0xdeadbeef, 12345});
  pair.target->queuePair->postWrite(2, Segment{}, {});
  CHECK(pair.target->waitCompleted(Opcode::write, 1).status == Status::success);
  CHECK(pair.target->waitCompleted(Opcode::write, 2).status == Status::success);
  send(*pair.target, 3, {pair.target->segment(0, 5)});
  CHECK(pair.initiator->waitCompleted(Opcode::receive, 1).byteLength == 5);
}

TEST_CASE("more RDMA Reads than may be outstanding wait for each other") {
  REQUIRE_DEVICE();
  PairOptions options;
  options.initiator.ird = 2;
  options.target.ord = 2;
  Pair pair(options);
  CHECK(pair.target->facts->ord == 2);
  pair.initiator->fill(0, 64 * 1024, 5);
  const auto source = pair.initiator->queuePair->advertise(pair.initiator->segment(0, 64 * 1024), Access::remoteRead);
  for (std::uint32_t i = 0; i < 64; i++) pair.target->queuePair->postRead(i, pair.target->segment(i * 1024, 1024), {source.tag, source.address + i * 1024});
  for (std::uint32_t i = 0; i < 64; i++) CHECK(pair.target->waitCompleted(Opcode::read, i).status == Status::success);
  CHECK(pair.target->holds(0, 64 * 1024, 5));
}

TEST_CASE("four MiB of RDMA Writes and Reads, mixed with messages") {
  REQUIRE_DEVICE();
  constexpr std::size_t mebibyte = 1 << 20;
  constexpr std::uint32_t chunk = 64 * 1024;
  PairOptions options;
  options.arenaLength = 8 * mebibyte;
  Pair pair(options);
  pair.initiator->fill(0, 4 * mebibyte, 7);
  pair.target->fill(4 * mebibyte, 4 * mebibyte, 8);
  constexpr std::uint32_t chunks = 4 * mebibyte / chunk;
  for (std::uint32_t i = 0; i < chunks; i++) pair.initiator->queuePair->postReceive(i, pair.initiator->segment(4 * mebibyte - 64, 0));
  for (std::uint32_t i = 0; i < chunks; i++) {
    const auto source = pair.initiator->queuePair->advertise(pair.initiator->segment(i * chunk, chunk), Access::remoteRead);
    const auto sink = pair.initiator->queuePair->advertise(pair.initiator->segment(4 * mebibyte + i * chunk, chunk), Access::remoteWrite);
    pair.target->queuePair->postRead(i, pair.target->segment(i * chunk, chunk), source);
    pair.target->queuePair->postWrite(i, pair.target->segment(4 * mebibyte + i * chunk, chunk), sink);
    send(*pair.target, i, {});
  }
  for (std::uint32_t i = 0; i < chunks; i++) {
    REQUIRE(pair.target->waitCompleted(Opcode::read, i).status == Status::success);
    REQUIRE(pair.target->waitCompleted(Opcode::write, i).status == Status::success);
    REQUIRE(pair.initiator->waitCompleted(Opcode::receive, i).status == Status::success);
  }
  CHECK(pair.target->holds(0, 4 * mebibyte, 7));
  CHECK(pair.initiator->holds(4 * mebibyte, 4 * mebibyte, 8));
}

TEST_CASE("many connections at a time keep to themselves") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  constexpr std::uint32_t number = 24;
  PairOptions options;
  options.arenaLength = 64 * 1024;
  for (auto* side : {&options.initiator, &options.target}) side->sendDepth = side->receiveDepth = side->advertisementDepth = 16;
  std::vector<std::unique_ptr<Pair>> pairs;
  for (std::uint32_t i = 0; i < number; i++) pairs.push_back(std::make_unique<Pair>(provider, options));
  for (std::uint32_t i = 0; i < number; i++) {
    auto& pair = *pairs[i];
    pair.target->fill(0, 32 * 1024, i);
    const auto sink = pair.initiator->queuePair->advertise(pair.initiator->segment(0, 32 * 1024), Access::remoteWrite);
    pair.initiator->queuePair->postReceive(1, pair.initiator->segment(60 * 1024, 64));
    pair.target->queuePair->postWrite(1, pair.target->segment(0, 32 * 1024), sink);
    send(*pair.target, 2, {pair.target->segment(0, 8)});
  }
  for (std::uint32_t i = 0; i < number; i++) {
    REQUIRE(pairs[i]->initiator->waitCompleted(Opcode::receive, 1).status == Status::success);
    CHECK(pairs[i]->initiator->holds(0, 32 * 1024, i));
  }
}

TEST_CASE("a queue pair takes as many requests as it was made for, and no more") {
  REQUIRE_DEVICE();
  PairOptions options;
  options.target.receiveDepth = 4;
  options.target.sendDepth = 4;
  options.target.advertisementDepth = 2;
  Pair pair(options);
  auto& target = *pair.target;
  for (std::uint32_t i = 0; i < 4; i++) target.queuePair->postReceive(i, target.segment(0, 64));
  CHECK_THROWS_AS(target.queuePair->postReceive(4, target.segment(0, 64)), std::length_error);
  CHECK_THROWS_AS(target.queuePair->postReceive(5, target.segment(1 << 20, 1)), std::out_of_range);
  CHECK_THROWS_AS(target.queuePair->postWrite(5, target.segment((1 << 20) - 1, 2), {}), std::out_of_range);
  static_cast<void>(target.queuePair->advertise(target.segment(0, 64), Access::remoteRead));
  const auto second = target.queuePair->advertise(target.segment(0, 64), Access::remoteRead);
  CHECK_THROWS_AS(static_cast<void>(target.queuePair->advertise(target.segment(0, 64), Access::remoteRead)), std::length_error);
  target.queuePair->revoke(second.tag);
  static_cast<void>(target.queuePair->advertise(target.segment(0, 64), Access::remoteRead));
  CHECK_THROWS_AS(static_cast<void>(target.queuePair->advertise(target.segment(1 << 20, 64), Access::remoteRead)), std::out_of_range);
}

}  // namespace iserfs::rdma::test
