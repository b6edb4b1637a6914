/** How connections of the software provider begin, fail to begin, and end when the peer is not one of ours. */
#include <doctest/doctest.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <list>
#include <optional>

#include "iwarp/mpa.h"
#include "raw_peer.h"
#include "support.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

namespace {

/** A queue pair that tries to connect. */
struct Attempt {
  explicit Attempt(const Address& to, std::uint32_t timeoutMs = 5000, const QueuePairOptions& options = {}) {
    end.queuePair = provider->connect(to, options, timeoutMs, end.events);
  }

  FailureCode failure() {
    const auto closed = end.events->waitClosed();
    REQUIRE(closed.has_value());
    CHECK_FALSE(closed->text.empty());
    CHECK_FALSE(end.events->wasEstablished());
    CHECK_FALSE(end.events->next().has_value());
    return closed->code;
  }

  std::shared_ptr<Provider> provider = threadedIwarpProvider();
  End end;
};

/** A listener of the provider, and a raw peer that has connected to it. */
struct Answerer {
  Answerer() { listener = provider->listen({"127.0.0.1", 0}, requests); }

  RawPeer connected(const std::string& request = "500200080010001080000000", const QueuePairOptions& options = {}) {
    RawPeer peer(addressOf(*listener));
    peer.send(mpaRequest(request));
    auto incoming = requests->next();
    REQUIRE(incoming != nullptr);
    end.queuePair = incoming->accept(options, end.events);
    CHECK(peer.receive(mpaHeaderLength).size() == mpaHeaderLength);
    return peer;
  }

  std::shared_ptr<Provider> provider = threadedIwarpProvider();
  std::shared_ptr<RequestRecorder> requests = std::make_shared<RequestRecorder>();
  std::unique_ptr<Listener> listener;
  End end;
};

/** The same where nobody gives turns but the test. */
struct TurnedAnswerer {
  TurnedAnswerer() {
    turn(5);
    peer.emplace(addressOf(*listener));
    peer->send(mpaRequest("500200080010001080000000"));
    turn(5);
    const auto incoming = requests->next();
    REQUIRE(incoming != nullptr);
    end.queuePair = incoming->accept({}, end.events);
    turn(5);
    REQUIRE(peer->receive(mpaHeaderLength).size() == mpaHeaderLength);
  }

  void turn(int times) {
    for (int i = 0; i < times; ++i) provider->turn();
  }
  bool isTurnDue() const {
    pollfd watched{.fd = provider->turnDescriptor(), .events = POLLIN, .revents = 0};
    return ::poll(&watched, 1, 0) > 0;
  }

  std::shared_ptr<Provider> provider = makeIwarpProvider();
  std::shared_ptr<RequestRecorder> requests = std::make_shared<RequestRecorder>();
  std::unique_ptr<Listener> listener = provider->listen({"127.0.0.1", 0}, requests);
  std::optional<RawPeer> peer;
  End end;
};

std::string headOf(const Bytes& bytes, std::size_t length) { return hexOf(bytes).substr(0, 2 * length); }

/** `code`: layer, type and code in hexadecimal. */
bool isTerminate(const Bytes& bytes, const std::string& code) {
  return bytes.size() > 22 && hexOf(bytes).substr(4, 4) == "4147" && hexOf(bytes).substr(40, 4) == code;
}

const Bytes four = bytesOf("01020304");

}  // namespace

TEST_SUITE_BEGIN("iwarp connection");

TEST_CASE("both ends learn the facts, over IPv4 and IPv6") {
  for (const std::string host : {"127.0.0.1", "::1"}) {
    QueuePairOptions ofInitiator;
    ofInitiator.ird = 7;
    ofInitiator.ord = 3;
    ofInitiator.privateData = bytesOf("80000000");
    QueuePairOptions ofResponder;
    ofResponder.ird = 2;
    ofResponder.ord = 16;
    ofResponder.privateData = bytesOf("c0ffee");
    Pair pair(ofInitiator, ofResponder, host);
    const auto atInitiator = *pair.initiator.events->waitEstablished();
    const auto atResponder = *pair.responder.events->waitEstablished();
    CHECK(atInitiator.device == "software");
    CHECK(atInitiator.fabric == "iWARP");
    CHECK(atInitiator.crc == true);
    CHECK(atInitiator.ird == 7);
    CHECK(atInitiator.ord == 2);
    CHECK(atResponder.ird == 2);
    CHECK(atResponder.ord == 7);
    CHECK(atResponder.crc == true);
    CHECK(hexOf(atInitiator.privateData) == "c0ffee");
    CHECK(hexOf(atResponder.privateData) == "80000000");
    CHECK(atInitiator.remoteAddress == pair.listener->localAddress());
    CHECK(atInitiator.localAddress == atResponder.remoteAddress);
    CHECK(atInitiator.localAddress.starts_with(host == "::1" ? "[::1]:" : "127.0.0.1:"));
  }
}

TEST_CASE("where nobody listens the connection is refused") {
  Address nowhere;
  {
    const RawListener gone;
    nowhere = gone.address();
  }
  QueuePairOptions options;
  options.receives = {{1, memory(10)}};
  Attempt attempt(nowhere, 5000, options);
  CHECK(attempt.failure() == FailureCode::refused);
}

TEST_CASE("an address that is none, and one without a way there, are told apart") {
  CHECK(Attempt({"example.com", 3260}).failure() == FailureCode::badAddress);
  CHECK(Attempt({"", 3260}).failure() == FailureCode::badAddress);
  const FailureCode code = Attempt({"fe80::1", 3260}).failure();
  CHECK((code == FailureCode::unreachable || code == FailureCode::badAddress));
}

TEST_CASE("a listener that says nothing is given up in time") {
  const RawListener silent;
  const auto begin = std::chrono::steady_clock::now();
  Attempt attempt(silent.address(), 200);
  CHECK(attempt.failure() == FailureCode::timedOut);
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(190));
}

TEST_CASE("the request is what MPA wants, and nothing follows it before the reply") {
  RawListener listener;
  QueuePairOptions options;
  options.privateData = bytesOf("80000000");
  options.receives = {{1, memory(100)}};
  Attempt attempt(listener.address(), 5000, options);
  RawPeer peer = listener.accept();
  attempt.end.queuePair->postSend(1, std::array{memory(4)}, std::nullopt);
  CHECK(peer.receive(28) == mpaRequest("500200080010001080000000"));
  // In two pieces, and with a message right behind.
  const Bytes reply = mpaReply("50020004") + bytesOf("00100010") + sendFrame(1, 0, four);
  peer.send(std::span(reply).first(13));
  peer.send(std::span(reply).subspan(13));
  REQUIRE(attempt.end.events->waitEstablished().has_value());
  CHECK(attempt.end.events->next(Opcode::receive)->byteLength == 4);
  CHECK(headOf(peer.receiveFrame(), 4) == "00164143");
}

TEST_CASE("replies that are none, and ends instead of replies, are said in words") {
  struct Case {
    Bytes reply;
    FailureCode code;
  };
  const std::array<Case, 6> cases{{
      {mpaReply("60010000"), FailureCode::rejected},
      {mpaReply("70020000"), FailureCode::peerViolation},
      {mpaReply("c0010000"), FailureCode::peerViolation},
      {mpaReply("00030000"), FailureCode::peerViolation},
      {bytesOf("3f00000000000000000000000000000000000000"), FailureCode::peerViolation},
      {{}, FailureCode::rejected},
  }};
  for (const Case& one : cases) {
    RawListener listener;
    Attempt attempt(listener.address());
    RawPeer peer = listener.accept();
    peer.receive(24);
    peer.send(one.reply);
    peer.shutdownSending();
    CHECK(attempt.failure() == one.code);
  }
}

TEST_CASE("a reply that wants more Reads than were granted is answered with Terminate") {
  RawListener listener;
  Attempt attempt(listener.address());
  RawPeer peer = listener.accept();
  peer.receive(24);
  peer.send(mpaReply("50020004") + bytesOf("00100011"));
  CHECK(attempt.failure() == FailureCode::peerViolation);
  CHECK(isTerminate(peer.receiveFrame(), "2006"));
}

TEST_CASE("listening where somebody listens, and where no address is, is refused") {
  const auto provider = threadedIwarpProvider();
  const auto requests = std::make_shared<RequestRecorder>();
  const auto listener = provider->listen({"127.0.0.1", 0}, requests);
  const auto codeOf = [&](const Address& at) {
    try {
      const auto second = provider->listen(at, requests);
    } catch (const ProviderError& error) {
      return error.failure().code;
    }
    return FailureCode::none;
  };
  CHECK(codeOf(addressOf(*listener)) == FailureCode::badAddress);
  CHECK(codeOf({"nonsense", 0}) == FailureCode::badAddress);
  CHECK(codeOf({"192.0.2.1", 0}) == FailureCode::badAddress);
}

TEST_CASE("a request shows who asks and with what, and may be rejected or forgotten") {
  Answerer answerer;
  {
    RawPeer peer(addressOf(*answerer.listener));
    peer.send(mpaRequest("500200080010001080000000"));
    auto request = answerer.requests->next();
    REQUIRE(request != nullptr);
    CHECK(hexOf(request->privateData()) == "80000000");
    CHECK(request->remoteAddress().starts_with("127.0.0.1:"));
    request->reject();
    CHECK(hexOf(peer.receive(24)) == hexOf(mpaReply("70020004") + bytesOf("00000000")));
    CHECK(peer.waitEnd());
  }
  RawPeer peer(addressOf(*answerer.listener));
  peer.send(mpaRequest("40010000"));
  answerer.requests->next().reset();
  CHECK(peer.receive(20) == mpaReply("60010000"));
  Pair pair;
  const auto events = std::make_shared<Recorder>();
  const auto rejected = pair.initiatorProvider->connect(addressOf(*pair.listener), {}, 5000, events);
  pair.requests->next()->reject();
  CHECK(events->waitClosed()->code == FailureCode::rejected);
}

TEST_CASE("a peer that has gone before it was answered is told") {
  Answerer answerer;
  RawPeer peer(addressOf(*answerer.listener));
  peer.send(mpaRequest("40010000"));
  auto request = answerer.requests->next();
  REQUIRE(request != nullptr);
  peer.reset();
  // The reset needs no time on loopback, but the provider may hear of it late: both ends of the race are an end.
  answerer.end.queuePair = request->accept({}, answerer.end.events);
  const auto failure = answerer.end.events->waitClosed();
  REQUIRE(failure.has_value());
  CHECK(failure->code == FailureCode::reset);
}

TEST_CASE("what connects without speaking MPA gets nothing, and nobody hears of it") {
  Answerer answerer;
  RawPeer wrong(addressOf(*answerer.listener));
  wrong.send(bytesOf("43870000000000ff0000000000000000000000000000000000000000"));
  CHECK(wrong.waitEnd());
  RawPeer markers(addressOf(*answerer.listener));
  markers.send(mpaRequest("80010000"));
  CHECK(markers.receive(20) == mpaReply("20010000"));
  RawPeer tooLong(addressOf(*answerer.listener));
  tooLong.send(mpaRequest("00010201"));
  CHECK(tooLong.waitEnd());
  RawPeer silent(addressOf(*answerer.listener));
  const auto begin = std::chrono::steady_clock::now();
  CHECK(silent.waitEnd(std::chrono::seconds(8)));
  CHECK(std::chrono::steady_clock::now() - begin > std::chrono::seconds(4));
  // The next to be heard of is the next that is right.
  RawPeer right(addressOf(*answerer.listener));
  right.send(mpaRequest("40010000"));
  CHECK(answerer.requests->next() != nullptr);
}

TEST_CASE("connections that are not decided on are bounded in number") {
  Answerer answerer;
  std::list<RawPeer> peers;
  for (int i = 0; i < 256; ++i) peers.emplace_back(addressOf(*answerer.listener));
  RawPeer extra(addressOf(*answerer.listener));
  CHECK(extra.waitEnd());
  peers.pop_front();
  // There is room again as soon as the provider has heard of it.
  CHECK(eventually([&] {
    RawPeer next(addressOf(*answerer.listener));
    next.send(mpaRequest("40010000"));
    return !next.waitEnd(std::chrono::milliseconds(50));
  }));
  CHECK(answerer.requests->next() != nullptr);
}

TEST_CASE("a peer that sends without end gets no more of a turn than its share") {
  TurnedAnswerer answerer;
  // The peer's system sends on by itself as the other end takes, so that a turn finds no end.
  constexpr std::size_t withoutEnd = 32 * 1024 * 1024;
  if (!answerer.peer->makeRoom(withoutEnd)) {
    MESSAGE("skipped: room for 32 MiB in a socket needs CAP_NET_ADMIN");
    return;
  }
  // Writes of nothing need no memory here.
  Bytes frames;
  while (frames.size() < withoutEnd) {
    const auto next = writeFrame(0, 0, {});
    frames.insert(frames.end(), next.begin(), next.end());
  }
  REQUIRE(answerer.peer->offer(frames) > withoutEnd / 2);
  std::size_t most = 0;
  for (int i = 0; i < 3; ++i) {
    const auto before = answerer.peer->unsent();
    answerer.turn(1);
    most = std::max(most, before - answerer.peer->unsent());
  }
  CHECK(answerer.end.events->wasEstablished());
  // What comes with an event, what was left of the event before, and the room by which the kernel's buffers grow meanwhile.
  CHECK(most < 10 * 1024 * 1024);
}

TEST_CASE("what has been sent whole asks for no turn, as much as it was") {
  TurnedAnswerer answerer;
  answerer.peer->send(writeFrame(0, 0, {}));
  while (answerer.isTurnDue()) answerer.turn(1);
  // As much as is sent in a turn.
  const Segment from = memory((1024 + 64) * 1024);
  QueuePair& queuePair = *answerer.end.queuePair;
  queuePair.cork();
  queuePair.postWrite(1, from, {1, 0});
  queuePair.uncork();
  while (answerer.end.events->batchCount() == 0) {
    REQUIRE(answerer.peer->receive(4096).size() == 4096);
    answerer.turn(1);
  }
  CHECK_FALSE(answerer.isTurnDue());
}

TEST_CASE("a peer-to-peer initiator is told of when its first message is there") {
  struct Case {
    const char* request;
    Bytes first;
    const char* answer;
  };
  const std::array<Case, 3> cases{{
      {"5002000480108010", writeFrame(0, 0, {}), nullptr},
      {"5002000480104010", readRequestFrame(1, {7, 8, 0, 9, 10}), "000ec142000000070000000000000008"},
      {"50020004c0100010", sendFrame(1, 0, {}), nullptr},
  }};
  for (const Case& one : cases) {
    Answerer answerer;
    RawPeer peer = answerer.connected(one.request);
    CHECK(peer.receive(4).size() == 4);
    CHECK_FALSE(answerer.end.events->wasEstablished());
    peer.send(one.first);
    REQUIRE(answerer.end.events->waitEstablished().has_value());
    if (one.answer != nullptr) CHECK(hexOf(peer.receiveFrame()).starts_with(one.answer));
    answerer.end.queuePair->postSend(1, std::array{memory(4)}, std::nullopt);
    CHECK(headOf(peer.receiveFrame(), 4) == "00164143");
    CHECK(answerer.end.events->next()->opcode == Opcode::send);
  }
}

TEST_CASE("nothing follows the reply before the initiator has spoken") {
  Answerer answerer;
  QueuePairOptions options;
  options.receives = {{1, memory(100)}};
  RawPeer peer = answerer.connected("10020004" "00040004", options);
  peer.receive(4);
  answerer.end.queuePair->postSend(1, std::array{memory(4)}, std::nullopt);
  peer.send(sendFrame(1, 0, four));
  const Bytes frame = peer.receiveFrame();
  CHECK(headOf(frame, 20) == "0016414300000000000000000000000100000000");
  // No CRC was asked for, so there is none.
  CHECK(hexOf(std::span(frame).last(4)) == "00000000");
}

TEST_CASE("peers that break a rule are told which, and the rest is flushed") {
  struct Case {
    const char* name;
    Bytes bytes;
    const char* code;
    const char* words;
  };
  Bytes badCrc = sendFrame(1, 0, four);
  badCrc.back() ^= std::byte{1};
  const std::array<Case, 8> cases{{
      {"CRC", badCrc, "2002", "CRC"},
      {"message number", sendFrame(2, 0, four), "1203", "where 1 was due"},
      {"message offset", sendFrame(1, 4, four), "1204", "from 4"},
      {"no receive", sendFrame(1, 0, four) + sendFrame(2, 0, four), "1202", "no receive was posted"},
      {"tag", writeFrame(0x1234, 0, four), "1100", "0x00001234"},
      {"opcode", sealed(bytesOf("0016414f 00000000 00000000 00000001 00000000 01020304")), "0206", "opcode 15"},
      {"read of nothing", readRequestFrame(1, {1, 2, 3, 4, 5}), "0100", "not in force"},
      {"unasked response", responseFrame(1, 2, four), "0206", "not asked for"},
  }};
  for (const Case& one : cases) {
    INFO(one.name);
    Answerer answerer;
    QueuePairOptions options;
    options.receives = {{1, memory(100)}};
    RawPeer peer = answerer.connected("500200080010001080000000", options);
    CHECK(peer.receive(4).size() == 4);
    REQUIRE(answerer.end.events->waitEstablished().has_value());
    peer.send(one.bytes);
    const auto failure = answerer.end.events->waitClosed();
    REQUIRE(failure.has_value());
    CHECK(failure->code == FailureCode::peerViolation);
    CHECK_MESSAGE(failure->text.find(one.words) != std::string::npos, failure->text);
    Bytes last = peer.receiveFrame();
    CHECK_MESSAGE(isTerminate(last, one.code), hexOf(last));
    CHECK(peer.waitEnd());
    CHECK(answerer.end.events->next(Opcode::receive).has_value());
    CHECK_FALSE(answerer.end.events->hasBrokenOrder());
  }
}

TEST_CASE("a Terminate, a reset, and ends in order and in the middle are told apart") {
  const auto end = [](const std::function<void(RawPeer&)>& act) {
    Answerer answerer;
    RawPeer peer = answerer.connected();
    peer.receive(4);
    REQUIRE(answerer.end.events->waitEstablished().has_value());
    act(peer);
    const auto failure = answerer.end.events->waitClosed();
    REQUIRE(failure.has_value());
    return failure->code;
  };
  CHECK(end([](RawPeer& peer) { peer.shutdownSending(); }) == FailureCode::none);
  CHECK(end([](RawPeer& peer) { peer.reset(); }) == FailureCode::reset);
  CHECK(end([](RawPeer& peer) {
          const Bytes bytes = writeFrame(0, 0, {});
          peer.send(std::span(bytes).first(7));
          peer.shutdownSending();
        }) == FailureCode::reset);
  CHECK(end([](RawPeer& peer) { peer.send(bytesOf("00164147000000000000000200000001000000000202000075d367ed")); }) ==
        FailureCode::terminated);
}

TEST_CASE("an orderly close does not wait for ever for a peer that says nothing") {
  Answerer answerer;
  RawPeer peer = answerer.connected();
  peer.receive(4);
  REQUIRE(answerer.end.events->waitEstablished().has_value());
  const auto begin = std::chrono::steady_clock::now();
  answerer.end.queuePair->close(CloseMode::orderly);
  CHECK(answerer.end.events->waitClosed()->code == FailureCode::none);
  const auto taken = std::chrono::steady_clock::now() - begin;
  CHECK(taken > std::chrono::seconds(1));
  CHECK(taken < std::chrono::seconds(4));
}

TEST_CASE("an abrupt close cuts an orderly one short, also before there is a connection") {
  Answerer answerer;
  RawPeer peer = answerer.connected();
  peer.receive(4);
  REQUIRE(answerer.end.events->waitEstablished().has_value());
  answerer.end.queuePair->close(CloseMode::orderly);
  const auto begin = std::chrono::steady_clock::now();
  answerer.end.queuePair->close(CloseMode::abrupt);
  CHECK(answerer.end.events->waitClosed().has_value());
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(1));
  const RawListener silent;
  Attempt attempt(silent.address());
  attempt.end.queuePair->close(CloseMode::orderly);
  CHECK(attempt.failure() == FailureCode::none);
}

TEST_CASE("a listener that is destroyed takes no more connections, and leaves those that there are") {
  Pair pair;
  const Address at = addressOf(*pair.listener);
  pair.listener.reset();
  CHECK_THROWS_AS(RawPeer{at}, std::runtime_error);
  pair.responder.queuePair->postReceive(1, memory(4));
  pair.initiator.queuePair->postSend(1, std::array{memory(4)}, std::nullopt);
  CHECK(pair.responder.events->next(Opcode::receive)->status == Status::success);
}

TEST_CASE("options that cannot be met throw at once") {
  const auto provider = threadedIwarpProvider();
  const auto events = std::make_shared<Recorder>();
  QueuePairOptions options;
  options.privateData.resize(197);
  CHECK_THROWS_AS(provider->connect({"127.0.0.1", 1}, options, 1000, events), std::length_error);
  options.privateData.clear();
  options.receiveDepth = 1;
  options.receives = {{1, memory(4)}, {2, memory(4)}};
  CHECK_THROWS_AS(provider->connect({"127.0.0.1", 1}, options, 1000, events), std::length_error);
  CHECK_FALSE(events->isClosed());
}

TEST_SUITE_END();

}  // namespace iserfs::test
