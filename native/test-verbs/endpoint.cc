/** See endpoint.h. */
#include "endpoint.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

namespace iserfs::rdma::test {

namespace {

using namespace std::chrono_literals;
constexpr auto patience = 20s;

std::byte pattern(std::size_t index, unsigned int seed) { return static_cast<std::byte>((index * 31 + index / 251 + seed * 101) & 0xff); }

}  // namespace

std::optional<std::string> deviceAddress() {
  const char* address = std::getenv("ISERFS_VERBS_ADDRESS");
  if (address == nullptr) return std::nullopt;
  return address;
}

Address addressOf(const Listener& listener) {
  const auto text = listener.localAddress();
  const auto colon = text.rfind(':');
  auto host = text.substr(0, colon);
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  return {host, static_cast<std::uint16_t>(std::stoi(text.substr(colon + 1)))};
}

std::vector<std::byte> bytesOf(const std::string& text) {
  std::vector<std::byte> bytes(text.size());
  std::transform(text.begin(), text.end(), bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
  return bytes;
}

// ---- endpoint ----

void Endpoint::established(const ConnectionFacts& now) noexcept {
  const std::lock_guard lock(mutex);
  if (failure || facts) outOfOrder++;
  facts = now;
  changed.notify_all();
}

void Endpoint::completed(std::span<const Completion> batch) noexcept {
  const std::lock_guard lock(mutex);
  if (failure || !facts) outOfOrder++;
  completions.insert(completions.end(), batch.begin(), batch.end());
  changed.notify_all();
}

void Endpoint::closed(const Failure& reason) noexcept {
  const std::lock_guard lock(mutex);
  if (failure) outOfOrder++;
  failure = reason;
  changed.notify_all();
}

bool Endpoint::waitFor(const std::function<bool()>& condition) {
  std::unique_lock lock(mutex);
  return changed.wait_for(lock, patience, condition);
}

bool Endpoint::waitEstablished() {
  waitFor([&] { return facts || failure; });
  const std::lock_guard lock(mutex);
  if (failure) MESSAGE("closed: " << failure->text);
  return facts.has_value() && !failure;
}

Failure Endpoint::waitClosed() {
  if (!waitFor([&] { return failure.has_value(); })) return {FailureCode::none, "never closed"};
  const std::lock_guard lock(mutex);
  CHECK(outOfOrder == 0);
  return *failure;
}

Completion Endpoint::waitCompleted(Opcode opcode, std::uint32_t workRequestId) {
  const auto matches = [&](const Completion& one) { return one.opcode == opcode && one.workRequestId == workRequestId; };
  Completion found{0xffffffff, opcode, Status::failed, false, 0, 0};
  waitFor([&] {
    const auto at = std::find_if(completions.begin(), completions.end(), matches);
    if (at != completions.end()) found = *at;
    return at != completions.end();
  });
  return found;
}

std::size_t Endpoint::count(Opcode opcode) {
  const std::lock_guard lock(mutex);
  return static_cast<std::size_t>(std::count_if(completions.begin(), completions.end(), [&](const auto& one) { return one.opcode == opcode; }));
}

std::size_t Endpoint::count(Opcode opcode, Status status) {
  const std::lock_guard lock(mutex);
  return static_cast<std::size_t>(
      std::count_if(completions.begin(), completions.end(), [&](const auto& one) { return one.opcode == opcode && one.status == status; }));
}

Segment Endpoint::segment(std::size_t offset, std::size_t length) const {
  return {arena, static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(length)};
}

void Endpoint::fill(std::size_t offset, std::size_t length, unsigned int seed) const {
  for (std::size_t i = 0; i < length; i++) *at(offset + i) = pattern(i, seed);
}

bool Endpoint::holds(std::size_t offset, std::size_t length, unsigned int seed) const {
  for (std::size_t i = 0; i < length; i++) {
    if (*at(offset + i) != pattern(i, seed)) return false;
  }
  return true;
}

// ---- requests ----

void Requests::requested(std::unique_ptr<ConnectionRequest> request) noexcept {
  const std::lock_guard lock(mutex_);
  waiting_.push_back(std::move(request));
  changed_.notify_all();
}

std::unique_ptr<ConnectionRequest> Requests::next() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, patience, [&] { return !waiting_.empty(); })) return nullptr;
  auto request = std::move(waiting_.front());
  waiting_.erase(waiting_.begin());
  return request;
}

// ---- pair ----

Pair::Pair(PairOptions options) : Pair(makeVerbsProvider(), std::move(options)) {}

Pair::Pair(std::shared_ptr<Provider> by, PairOptions options)
    : provider(std::move(by)),
      listener(provider->listen({deviceAddress().value(), 0}, requests)),
      initiator(std::make_shared<Endpoint>(options.arenaLength)),
      target(std::make_shared<Endpoint>(options.arenaLength)) {
  initiator->queuePair = provider->connect(addressOf(*listener), options.initiator, 15'000, initiator);
  const auto request = requests->next();
  REQUIRE(request != nullptr);
  target->queuePair = request->accept(options.target, target);
  REQUIRE(initiator->waitEstablished());
  REQUIRE(target->waitEstablished());
}

Pair::~Pair() { closeBoth(); }

bool Pair::isIwarp() { return initiator->facts->fabric == "iWARP"; }

bool Pair::hasWindows() { return initiator->facts->protection == Protection::window; }

void Pair::closeBoth() {
  for (const auto& end : {initiator, target}) {
    if (end->queuePair == nullptr) continue;
    end->queuePair->close(CloseMode::abrupt);
    CHECK(end->waitClosed().text != "never closed");
    end->queuePair.reset();
  }
}

}  // namespace iserfs::rdma::test
