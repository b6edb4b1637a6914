/** How connections do not come about, and how they end. */
#include <doctest/doctest.h>
#include <dirent.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "endpoint.h"

namespace iserfs::rdma::test {

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

std::shared_ptr<Endpoint> connectTo(Provider& provider, const Address& to, std::uint32_t timeoutMs) {
  auto end = std::make_shared<Endpoint>();
  end->queuePair = provider.connect(to, {}, timeoutMs, end);
  return end;
}

int openFiles() {
  int count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  REQUIRE(directory != nullptr);
  while (::readdir(directory) != nullptr) count++;
  ::closedir(directory);
  return count;
}

double processorSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/** An address that is routed to the device's network, where nobody is: the last of its /24. */
std::string silentAddress() {
  const auto address = deviceAddress().value();
  return address.substr(0, address.rfind('.')) + ".250";
}

}  // namespace

TEST_CASE("without devices the provider says so") {
  if (deviceAddress()) return;
  for (const auto& attempt : {+[] { static_cast<void>(makeVerbsProvider()); }, +[] { static_cast<void>(listVerbsDevices()); }}) {
    try {
      attempt();
      FAIL("there is a device, but ISERFS_VERBS_ADDRESS is not set");
    } catch (const ProviderError& error) {
      MESSAGE(std::string(error.what()));
      CHECK(error.failure().code == FailureCode::unsupported);
      CHECK(std::strlen(error.what()) > 0);
    }
  }
}

TEST_CASE("listening needs an address of a device and a free port") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  const auto requests = std::make_shared<Requests>();
  const auto listener = provider->listen({*deviceAddress(), 0}, requests);
  CHECK(addressOf(*listener).host == *deviceAddress());
  CHECK(addressOf(*listener).port != 0);
  const auto codeOf = [&](const Address& at) {
    try {
      static_cast<void>(provider->listen(at, requests));
      return FailureCode::none;
    } catch (const ProviderError& error) {
      MESSAGE(std::string(error.what()));
      return error.failure().code;
    }
  };
  CHECK(codeOf(addressOf(*listener)) == FailureCode::badAddress);
  CHECK(codeOf({"203.0.113.7", 3260}) == FailureCode::badAddress);
  CHECK(codeOf({"localhost", 3260}) == FailureCode::badAddress);
  CHECK(codeOf({"0.0.0.0", 0}) == FailureCode::none);
}

TEST_CASE("a port where nobody listens refuses") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  Address gone;
  {
    const auto listener = provider->listen({*deviceAddress(), 0}, std::make_shared<Requests>());
    gone = addressOf(*listener);
  }
  const auto end = connectTo(*provider, gone, 10'000);
  const auto failure = end->waitClosed();
  MESSAGE(failure.text);
  CHECK(failure.code == FailureCode::refused);
  CHECK_FALSE(end->facts.has_value());
}

TEST_CASE("a listener may reject, or forget to answer") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  const auto requests = std::make_shared<Requests>();
  const auto listener = provider->listen({*deviceAddress(), 0}, requests);
  for (const bool isExplicit : {true, false}) {
    CAPTURE(isExplicit);
    const auto end = connectTo(*provider, addressOf(*listener), 10'000);
    auto request = requests->next();
    REQUIRE(request != nullptr);
    CHECK(request->remoteAddress().starts_with(*deviceAddress()));
    if (isExplicit) request->reject();
    request.reset();
    const auto failure = end->waitClosed();
    MESSAGE(failure.text);
    CHECK(failure.code == FailureCode::rejected);
  }
}

TEST_CASE("an address that no device leads to is unreachable, in words") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  const auto loopback = connectTo(*provider, {"127.0.0.1", 3260}, 5'000)->waitClosed();
  MESSAGE(loopback.text);
  CHECK(loopback.code == FailureCode::unreachable);
  CHECK(loopback.text.find("no RDMA device") != std::string::npos);
  const auto begin = Clock::now();
  const auto none = connectTo(*provider, {"203.0.113.7", 3260}, 5'000)->waitClosed();
  MESSAGE(none.text);
  CHECK(none.code == FailureCode::unreachable);
  // Without a route it does not come to the question of a device.
  CHECK(none.text.find("no RDMA ") == 0);
  CHECK(Clock::now() - begin < 4s);
  const auto name = connectTo(*provider, {"no.such.name", 3260}, 5'000)->waitClosed();
  CHECK(name.code == FailureCode::badAddress);
}

TEST_CASE("a timeout ends a connection attempt, whatever it is waiting for") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  const auto requests = std::make_shared<Requests>();
  const auto listener = provider->listen({*deviceAddress(), 0}, requests);
  for (const auto& to : {addressOf(*listener), Address{silentAddress(), 3260}}) {
    CAPTURE(to.host);
    const auto begin = Clock::now();
    const auto failure = connectTo(*provider, to, 700)->waitClosed();
    MESSAGE(failure.text);
    CHECK(failure.code == FailureCode::timedOut);
    CHECK(Clock::now() - begin >= 690ms);
    CHECK(Clock::now() - begin < 5s);
  }
  // The request of one who gave up may still be accepted: then its connection does not come about.
  if (auto request = requests->next()) {
    const auto late = std::make_shared<Endpoint>();
    late->queuePair = request->accept({}, late);
    if (late->waitFor([&] { return late->failure || late->facts; })) late->queuePair->close(CloseMode::abrupt);
    CHECK(late->waitClosed().text != "never closed");
  }
}

TEST_CASE("a silent address holds up no other connection") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  const auto silent = connectTo(*provider, {silentAddress(), 3260}, 60'000);
  const auto begin = Clock::now();
  {
    Pair pair(provider);
    pair.target->queuePair->postReceive(1, pair.target->segment(0, 64));
    pair.initiator->queuePair->postSend(1, {}, std::nullopt);
    CHECK(pair.target->waitCompleted(Opcode::receive, 1).status == Status::success);
  }
  CHECK(Clock::now() - begin < 20s);
  silent->queuePair->close(CloseMode::abrupt);
  CHECK(silent->waitClosed().code == FailureCode::none);
  CHECK(Clock::now() - begin < 30s);
}

TEST_CASE("a close at any moment of a connection attempt ends it") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  const auto requests = std::make_shared<Requests>();
  const auto listener = provider->listen({*deviceAddress(), 0}, requests);
  // siw (Linux 6.1) loses count of its listener, and then the machine, where an initiator goes between its TCP connection and its MPA
  // request: there only an address that never answers is tried at all moments.
  const bool isIwarp = listVerbsDevices().front().fabric == "iWARP";
  const Address silent{silentAddress(), 3260};
  for (int i = 0; i < 30; i++) {
    const auto end = connectTo(*provider, isIwarp || i % 3 == 0 ? silent : addressOf(*listener), 5'000);
    std::this_thread::sleep_for(std::chrono::microseconds(i * i * 20));
    end->queuePair->close(i % 2 == 0 ? CloseMode::abrupt : CloseMode::orderly);
    const auto failure = end->waitClosed();
    CAPTURE(failure.text);
    CHECK(failure.code == FailureCode::none);
  }
}

TEST_CASE("a close while the listener has not answered ends the attempt at once") {
  REQUIRE_DEVICE();
  const auto provider = makeVerbsProvider();
  const auto requests = std::make_shared<Requests>();
  const auto listener = provider->listen({*deviceAddress(), 0}, requests);
  const auto end = connectTo(*provider, addressOf(*listener), 5'000);
  auto request = requests->next();
  REQUIRE(request != nullptr);
  const auto begin = Clock::now();
  end->queuePair->close(CloseMode::orderly);
  CHECK(end->waitClosed().code == FailureCode::none);
  CHECK(Clock::now() - begin < 4s);
}

TEST_CASE("an orderly close sends what is posted first, and the peer gets all of it") {
  REQUIRE_DEVICE();
  for (const bool byInitiator : {true, false}) {
    CAPTURE(byInitiator);
    Pair pair;
    auto& closer = byInitiator ? *pair.initiator : *pair.target;
    auto& other = byInitiator ? *pair.target : *pair.initiator;
    closer.fill(0, 100 * 4096, 6);
    for (std::uint32_t i = 0; i < 100; i++) other.queuePair->postReceive(i, other.segment(i * 4096, 4096));
    for (std::uint32_t i = 0; i < 100; i++) {
      const auto segment = closer.segment(i * 4096, 4096);
      closer.queuePair->postSend(i, std::span(&segment, 1), std::nullopt);
    }
    closer.queuePair->close(CloseMode::orderly);
    closer.queuePair->close(CloseMode::orderly);
    CHECK(closer.waitClosed().code == FailureCode::none);
    CHECK(other.waitClosed().code == FailureCode::none);
    CHECK(closer.count(Opcode::send, Status::success) == 100);
    CHECK(other.count(Opcode::receive, Status::success) == 100);
    CHECK(other.holds(0, 100 * 4096, 6));
  }
}

TEST_CASE("whatever is posted completes once, when either end cuts the connection") {
  REQUIRE_DEVICE();
  for (const bool byInitiator : {true, false}) {
    CAPTURE(byInitiator);
    Pair pair;
    const auto sink = pair.initiator->queuePair->advertise(pair.initiator->segment(0, 1 << 20), Access::remoteWrite);
    for (std::uint32_t i = 0; i < 200; i++) {
      pair.initiator->queuePair->postReceive(i, pair.initiator->segment(0, 4096));
      pair.target->queuePair->postReceive(i, pair.target->segment(0, 4096));
    }
    for (std::uint32_t i = 0; i < 100; i++) {
      const auto segment = pair.target->segment(i * 4096, 4096);
      pair.target->queuePair->postSend(i, std::span(&segment, 1), std::nullopt);
      pair.target->queuePair->postWrite(i, pair.target->segment(0, 1 << 16), sink);
    }
    auto& closer = byInitiator ? *pair.initiator : *pair.target;
    closer.queuePair->close(CloseMode::abrupt);
    const auto own = closer.waitClosed();
    CAPTURE(own.text);
    CHECK(own.code == FailureCode::none);
    const auto seen = byInitiator ? pair.target->waitClosed() : pair.initiator->waitClosed();
    MESSAGE("the other end: " << static_cast<int>(seen.code) << " " << seen.text);
    CHECK((seen.code == FailureCode::none || seen.code == FailureCode::reset));
    CHECK(pair.initiator->count(Opcode::receive) == 200);
    CHECK(pair.target->count(Opcode::receive) == 200);
    CHECK(pair.target->count(Opcode::receive, Status::flushed) == 200);
    CHECK(pair.target->count(Opcode::send) == 100);
    CHECK(pair.target->count(Opcode::write) == 100);
    CHECK(pair.target->count(Opcode::send, Status::failed) == 0);
  }
}

TEST_CASE("what is posted to a connection that is ending is flushed") {
  REQUIRE_DEVICE();
  Pair pair;
  // Nobody receives at the other end, so that the close cannot complete at once where the fabric waits for receivers.
  pair.initiator->queuePair->close(CloseMode::orderly);
  for (std::uint32_t i = 0; i < 50; i++) {
    pair.initiator->queuePair->postReceive(i, pair.initiator->segment(0, 64));
    pair.initiator->queuePair->postSend(i, {}, std::nullopt);
  }
  CHECK(pair.initiator->waitClosed().code == FailureCode::none);
  pair.initiator->queuePair->postSend(51, {}, std::nullopt);
  CHECK(pair.initiator->count(Opcode::receive, Status::success) == 0);
  CHECK(pair.initiator->outOfOrder == 0);
}

TEST_CASE("a message that is longer than its receive ends the connection") {
  REQUIRE_DEVICE();
  Pair pair;
  pair.target->queuePair->postReceive(1, pair.target->segment(0, 100));
  const auto message = pair.initiator->segment(0, 4096);
  pair.initiator->fill(0, 4096, 5);
  pair.initiator->queuePair->postSend(1, std::span(&message, 1), std::nullopt);
  const auto receiver = pair.target->waitClosed();
  const auto sender = pair.initiator->waitClosed();
  MESSAGE("receiver: " << receiver.text << "; sender: " << sender.text);
  // siw (Linux 6.1) says that something was fatal at one end, and at the other not that a Terminate came.
  CHECK(receiver.code == (pair.isIwarp() ? FailureCode::reset : FailureCode::peerViolation));
  // On a busy machine the news that the receiver is gone may overtake the error of the Send.
  if (!pair.isIwarp()) CHECK((sender.code == FailureCode::terminated || sender.code == FailureCode::reset));
  for (std::size_t i = 100; i < 4096; i++) REQUIRE(*pair.target->at(i) == std::byte{0});
}

TEST_CASE("a message without a receive waits for one on InfiniBand and RoCE, and ends the connection on iWARP") {
  REQUIRE_DEVICE();
  Pair pair;
  const auto message = pair.initiator->segment(0, 64);
  pair.initiator->queuePair->postSend(1, std::span(&message, 1), std::nullopt);
  if (pair.isIwarp()) {
    const auto failure = pair.target->waitClosed();
    // siw (Linux 6.1) does not say why.
    CHECK(failure.text != "never closed");
    return;
  }
  std::this_thread::sleep_for(50ms);
  CHECK(pair.initiator->count(Opcode::send) == 0);
  pair.target->queuePair->postReceive(7, pair.target->segment(0, 64));
  CHECK(pair.target->waitCompleted(Opcode::receive, 7).status == Status::success);
}

TEST_CASE("an end that is dropped closes its connection") {
  REQUIRE_DEVICE();
  Pair pair;
  pair.initiator->queuePair.reset();
  CHECK(pair.initiator->waitClosed().code == FailureCode::none);
  CHECK(pair.target->waitClosed().text != "never closed");
}

TEST_CASE("a provider may go at any moment") {
  REQUIRE_DEVICE();
  const int before = openFiles();
  for (int round = 0; round < 2; round++) {
    auto provider = makeVerbsProvider();
    auto requests = std::make_shared<Requests>();
    auto listener = provider->listen({*deviceAddress(), 0}, requests);
    auto connected = std::make_shared<Endpoint>();
    auto accepted = std::make_shared<Endpoint>();
    connected->queuePair = provider->connect(addressOf(*listener), {}, 5'000, connected);
    accepted->queuePair = requests->next()->accept({}, accepted);
    REQUIRE(connected->waitEstablished());
    REQUIRE(accepted->waitEstablished());
    connected->queuePair->postReceive(1, connected->segment(0, 64));
    static_cast<void>(connected->queuePair->advertise(connected->segment(0, 64), Access::remoteWrite));
    const auto asking = connectTo(*provider, addressOf(*listener), 5'000);
    const auto request = requests->next();
    const auto silent = connectTo(*provider, {silentAddress(), 3260}, 60'000);
    const auto begin = Clock::now();
    provider.reset();
    CHECK(Clock::now() - begin < 5s);
    for (const auto& end : {connected, accepted, asking, silent}) CHECK(end->waitClosed().text != "never closed");
    CHECK(connected->count(Opcode::receive, Status::flushed) == 1);
    // Nothing that is used afterwards does harm.
    connected->queuePair->postReceive(2, connected->segment(0, 64));
    connected->queuePair->revoke(1);
    connected->queuePair->close(CloseMode::orderly);
    listener.reset();
  }
  // The devices stay open in librdmacm; nothing else does, and nothing grows.
  const int once = openFiles();
  { const auto provider = makeVerbsProvider(); }
  CHECK(openFiles() == once);
  CHECK(once <= before + 16);
}

TEST_CASE("two providers share the devices, and one may go before the other") {
  REQUIRE_DEVICE();
  for (int round = 0; round < 10; round++) {
    auto listening = makeVerbsProvider();
    auto connecting = makeVerbsProvider();
    const auto requests = std::make_shared<Requests>();
    const auto listener = listening->listen({*deviceAddress(), 0}, requests);
    const auto initiator = connectTo(*connecting, addressOf(*listener), 10'000);
    const auto target = std::make_shared<Endpoint>();
    QueuePairOptions options;
    options.receives.push_back({1, target->segment(0, 64)});
    target->queuePair = requests->next()->accept(options, target);
    REQUIRE(initiator->waitEstablished());
    REQUIRE(target->waitEstablished());
    const auto message = initiator->segment(0, 64);
    initiator->queuePair->postSend(1, std::span(&message, 1), std::nullopt);
    CHECK(target->waitCompleted(Opcode::receive, 1).status == Status::success);
    // What the initiator may not: both providers hear of the device's event.
    if (round % 2 == 0) initiator->queuePair->postWrite(2, initiator->segment(0, 64), {0x12345600, 0});
    (round % 4 < 2 ? listening : connecting).reset();
    CHECK(initiator->waitClosed().text != "never closed");
    CHECK(target->waitClosed().text != "never closed");
  }
}

TEST_CASE("idle connections cost no processor time") {
  REQUIRE_DEVICE();
  Pair pair;
  pair.target->queuePair->postReceive(1, pair.target->segment(0, 64));
  pair.initiator->queuePair->postSend(1, {}, std::nullopt);
  CHECK(pair.target->waitCompleted(Opcode::receive, 1).status == Status::success);
  CHECK(pair.initiator->waitCompleted(Opcode::send, 1).status == Status::success);
  std::this_thread::sleep_for(100ms);
  const double before = processorSeconds();
  std::this_thread::sleep_for(1s);
  CHECK(processorSeconds() - before < 0.02);
}

}  // namespace iserfs::rdma::test
