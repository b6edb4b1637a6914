#include "support.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace iserfs::test {

namespace {

constexpr std::chrono::seconds patience{5};

int digitOf(char character) {
  if (character >= '0' && character <= '9') return character - '0';
  if (character >= 'a' && character <= 'f') return character - 'a' + 10;
  return -1;
}

std::byte patternAt(std::uint32_t seed, std::uint32_t offset) {
  std::uint32_t mixed = (seed * 0x9e3779b9U) ^ (offset * 0x85ebca6bU);
  mixed = (mixed ^ (mixed >> 15)) * 0x2c1b3c6dU;
  return static_cast<std::byte>(mixed >> 24);
}

}  // namespace

std::vector<std::byte> bytesOf(std::string_view hexadecimal) {
  std::vector<std::byte> bytes;
  int high = -1;
  for (const char character : hexadecimal) {
    const int digit = digitOf(character);
    if (digit < 0) continue;
    if (high < 0) {
      high = digit;
    } else {
      bytes.push_back(static_cast<std::byte>(high << 4 | digit));
      high = -1;
    }
  }
  if (high >= 0) throw std::invalid_argument("half a byte");
  return bytes;
}

std::string hexOf(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    const auto value = std::to_integer<unsigned>(byte);
    text += "0123456789abcdef"[value >> 4];
    text += "0123456789abcdef"[value & 0xf];
  }
  return text;
}

Segment memory(std::uint32_t length) { return {Arena::allocate(std::max<std::uint32_t>(length, 1)), 0, length}; }

Segment part(const Segment& of, std::uint32_t offset, std::uint32_t length) { return {of.arena, of.offset + offset, length}; }

void fillPattern(const Segment& segment, std::uint32_t seed) {
  for (std::uint32_t i = 0; i < segment.length; ++i) segment.data()[i] = patternAt(seed, i);
}

bool hasPattern(const Segment& segment, std::uint32_t seed) {
  for (std::uint32_t i = 0; i < segment.length; ++i) {
    if (segment.data()[i] != patternAt(seed, i)) return false;
  }
  return true;
}

bool isFilledWith(const Segment& segment, std::byte value) {
  return std::all_of(segment.data(), segment.data() + segment.length, [value](std::byte byte) { return byte == value; });
}

bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

void Recorder::established(const ConnectionFacts& facts) noexcept {
  const std::lock_guard guard(lock_);
  isOrderBroken_ = isOrderBroken_ || facts_ || failure_ || batches_ > 0;
  facts_ = facts;
  changed_.notify_all();
}

void Recorder::completed(std::span<const Completion> completions) noexcept {
  const std::lock_guard guard(lock_);
  isOrderBroken_ = isOrderBroken_ || !facts_ || failure_;
  completions_.insert(completions_.end(), completions.begin(), completions.end());
  ++batches_;
  changed_.notify_all();
}

void Recorder::closed(const Failure& failure) noexcept {
  const std::lock_guard guard(lock_);
  isOrderBroken_ = isOrderBroken_ || failure_;
  failure_ = failure;
  changed_.notify_all();
}

template <typename Condition>
bool Recorder::wait(std::unique_lock<std::mutex>& guard, Condition condition) {
  return changed_.wait_until(guard, std::chrono::steady_clock::now() + patience, condition);
}

std::optional<ConnectionFacts> Recorder::waitEstablished() {
  std::unique_lock guard(lock_);
  wait(guard, [this] { return facts_ || failure_; });
  return facts_;
}

std::optional<Completion> Recorder::next() {
  std::unique_lock guard(lock_);
  wait(guard, [this] { return !completions_.empty() || failure_; });
  if (completions_.empty()) return std::nullopt;
  const Completion first = completions_.front();
  completions_.erase(completions_.begin());
  return first;
}

std::optional<Completion> Recorder::next(Opcode opcode) {
  std::unique_lock guard(lock_);
  const auto find = [this, opcode] {
    return std::find_if(completions_.begin(), completions_.end(), [opcode](const Completion& one) { return one.opcode == opcode; });
  };
  wait(guard, [this, &find] { return find() != completions_.end() || failure_; });
  const auto found = find();
  if (found == completions_.end()) return std::nullopt;
  const Completion first = *found;
  completions_.erase(found);
  return first;
}

std::optional<Failure> Recorder::waitClosed() {
  std::unique_lock guard(lock_);
  // Longer than any bound of the provider's on an end.
  changed_.wait_until(guard, std::chrono::steady_clock::now() + 3 * patience, [this] { return failure_.has_value(); });
  return failure_;
}

bool Recorder::isClosed() {
  const std::lock_guard guard(lock_);
  return failure_.has_value();
}

bool Recorder::wasEstablished() {
  const std::lock_guard guard(lock_);
  return facts_.has_value();
}

bool Recorder::hasBrokenOrder() {
  const std::lock_guard guard(lock_);
  return isOrderBroken_;
}

std::size_t Recorder::batchCount() {
  const std::lock_guard guard(lock_);
  return batches_;
}

void RequestRecorder::requested(std::unique_ptr<ConnectionRequest> request) noexcept {
  const std::lock_guard guard(lock_);
  requests_.push_back(std::move(request));
  changed_.notify_all();
}

std::unique_ptr<ConnectionRequest> RequestRecorder::next() {
  std::unique_lock guard(lock_);
  changed_.wait_until(guard, std::chrono::steady_clock::now() + patience, [this] { return !requests_.empty(); });
  if (requests_.empty()) return nullptr;
  auto first = std::move(requests_.front());
  requests_.erase(requests_.begin());
  return first;
}

Address addressOf(const Listener& listener) {
  const std::string text = listener.localAddress();
  const auto colon = text.rfind(':');
  std::string host = text.substr(0, colon);
  if (host.front() == '[') host = host.substr(1, host.size() - 2);
  return {host, static_cast<std::uint16_t>(std::stoi(text.substr(colon + 1)))};
}

Pair::Pair(const QueuePairOptions& ofInitiator, const QueuePairOptions& ofResponder, const std::string& host) {
  listener = responderProvider->listen({host, 0}, requests);
  initiator.queuePair = initiatorProvider->connect(addressOf(*listener), ofInitiator, 5000, initiator.events);
  const auto request = requests->next();
  REQUIRE(request != nullptr);
  responder.queuePair = request->accept(ofResponder, responder.events);
  REQUIRE(initiator.events->waitEstablished().has_value());
  REQUIRE(responder.events->waitEstablished().has_value());
}

}  // namespace iserfs::test
