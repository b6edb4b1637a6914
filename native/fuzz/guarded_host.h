/**
 * What a receiver under fuzzing writes to: receives, advertisements and sinks of Reads inside one piece of memory that is otherwise
 * canaries, with a log of all that was delivered. Any byte that changes without having been granted ends the program.
 *
 * The tags of captured streams stand for advertisements here, so that seeds reach the code behind the tag check.
 */
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "arena.h"
#include "iwarp/crc32c.h"
#include "iwarp/receiver.h"
#include "iwarp/stag_table.h"
#include "must.h"

namespace iserfs::fuzz {

class GuardedHost final : public rdma::iwarp::Receiver::Host {
 public:
  static constexpr std::uint32_t runLength = 3000;
  static constexpr std::uint32_t guardLength = 256;
  static constexpr std::uint32_t runCount = 12;
  static constexpr std::byte canary{0xa5};

  static constexpr std::uint32_t receiveCount = 4;
  static constexpr std::uint32_t maxReadRequests = 4;

  GuardedHost()
      : arena_(rdma::Arena::allocate(runCount * (runLength + guardLength) + guardLength)), table_(16, 7) {
    std::memset(arena_->data(), std::to_integer<int>(canary), arena_->length());
    for (std::uint32_t index = 0; index < receiveCount; ++index) receives_.push_back(span(run(index)));
    writable_ = {insert(4, rdma::iwarp::TagRight::remoteWrite), insert(5, rdma::iwarp::TagRight::remoteWrite)};
    readable_ = {insert(6, rdma::iwarp::TagRight::remoteRead), insert(7, rdma::iwarp::TagRight::remoteRead)};
    for (std::uint32_t index = 8; index < 10; ++index) {
      const auto tag = insert(index, rdma::iwarp::TagRight::readSink);
      reads_.push_back({tag, table_.addressOf(tag), span(run(index))});
    }
    revoked_ = insert(10, rdma::iwarp::TagRight::remoteWrite);
    table_.erase(revoked_);
  }

  // ---- what the generator of frames may name ----

  std::uint32_t tag(unsigned choice) const {
    const std::array<std::uint32_t, 8> tags{writable_[0], writable_[1],     readable_[0], readable_[1],
                                            revoked_,     firstSinkTag(),   0,            0xffffffffU};
    return tags[choice % tags.size()];
  }
  std::uint64_t address(std::uint32_t tag) const { return table_.addressOf(tag); }

  // ---- Host ----

  std::optional<std::span<std::byte>> beginMessage() noexcept override {
    MUST(!messageOpen_);
    if (receives_.empty()) return std::nullopt;
    messageOpen_ = true;
    grant(receives_.front());
    return receives_.front();
  }

  std::optional<rdma::iwarp::Violation> endMessage(std::uint32_t length, std::optional<std::uint32_t> invalidated) noexcept override {
    MUST(messageOpen_);
    MUST(length <= receives_.front().size());
    messageOpen_ = false;
    log("message " + std::to_string(length), receives_.front().first(length));
    receives_.pop_front();
    if (!invalidated) return std::nullopt;
    const auto tag = alias(*invalidated, 0).tag;
    auto* const entry = table_.find(tag);
    if (entry == nullptr || entry->right == rdma::iwarp::TagRight::readSink || entry->isPlacing)
      return rdma::iwarp::Violation{"cannot invalidate", rdma::iwarp::terminate_code::cannotInvalidate};
    table_.erase(tag);
    log("invalidated", {});
    return std::nullopt;
  }

  rdma::iwarp::Receiver::Place beginWrite(std::uint32_t tag, std::uint64_t address, std::uint32_t length) noexcept override {
    MUST(!placing_);
    MUST(length > 0);
    const auto at = alias(tag, address);
    const auto found = table_.check(at.tag, at.address, length, rdma::iwarp::TagRight::remoteWrite);
    if (found.fault != rdma::iwarp::TagFault::none)
      return {nullptr, rdma::iwarp::Violation{"write refused", rdma::iwarp::terminate_code::taggedInvalidTag}};
    MUST(std::uint64_t{found.offset} + length <= found.entry->segment.length);
    placing_ = at.tag;
    auto* const memory = found.entry->segment.data() + found.offset;
    grant({memory, length});
    written_ = {memory, length};
    found.entry->isPlacing = true;
    return {memory, std::nullopt};
  }

  void endWrite(std::uint32_t tag) noexcept override {
    MUST(placing_ == alias(tag, 0).tag);
    table_.find(*placing_)->isPlacing = false;
    placing_.reset();
    log("write", written_);
  }

  std::optional<rdma::iwarp::Receiver::ReadSink> oldestRead() noexcept override {
    if (reads_.empty()) return std::nullopt;
    grant(reads_.front().memory);
    return reads_.front();
  }

  void endRead() noexcept override {
    MUST(!reads_.empty());
    log("read", reads_.front().memory);
    reads_.pop_front();
  }

  std::optional<rdma::iwarp::Violation> readRequested(const rdma::iwarp::ReadRequest& request) noexcept override {
    if (++readRequests_ > maxReadRequests) return rdma::iwarp::Violation{"too many reads", rdma::iwarp::terminate_code::streamCatastrophe};
    const auto at = alias(request.sourceTag, request.sourceAddress);
    if (request.length > 0) {
      const auto found = table_.check(at.tag, at.address, request.length, rdma::iwarp::TagRight::remoteRead);
      if (found.fault != rdma::iwarp::TagFault::none)
        return rdma::iwarp::Violation{"read refused", rdma::iwarp::terminate_code::invalidTag};
      MUST(std::uint64_t{found.offset} + request.length <= found.entry->segment.length);
    }
    log("read request " + std::to_string(request.length), {});
    return std::nullopt;
  }

  // ---- checks ----

  /** Nothing changed that was not granted. The last thing to call: what was granted is overwritten, so that one comparison does. */
  void checkCanaries() {
    for (const auto memory : granted_) std::memset(memory.data(), std::to_integer<int>(canary), memory.size());
    MUST(*arena_->data() == canary);
    MUST(std::memcmp(arena_->data(), arena_->data() + 1, arena_->length() - 1) == 0);
  }
  const std::vector<std::string>& delivered() const noexcept { return delivered_; }

 private:
  struct Alias {
    std::uint32_t tag;
    std::uint64_t address;
  };

  rdma::Segment run(std::uint32_t index) const { return {arena_, guardLength + index * (runLength + guardLength), runLength}; }
  static std::span<std::byte> span(const rdma::Segment& segment) { return {segment.data(), segment.length}; }
  std::uint32_t insert(std::uint32_t index, rdma::iwarp::TagRight right) {
    const auto tag = table_.insert(run(index), right);
    table_.find(tag)->inForce = true;
    return tag;
  }
  std::uint32_t firstSinkTag() const { return reads_.empty() ? 0 : reads_.front().tag; }

  /** 0x1002 and 0x1015: captured READs, at 0x10000; 0x2014: a captured WRITE, at 0x20000. */
  Alias alias(std::uint32_t tag, std::uint64_t address) const noexcept {
    if (tag == 0x1002) return {writable_[0], address - 0x10000 + table_.addressOf(writable_[0])};
    if (tag == 0x1015) return {writable_[1], address - 0x10000 + table_.addressOf(writable_[1])};
    if (tag == 0x2014) return {readable_[0], address - 0x20000 + table_.addressOf(readable_[0])};
    return {tag, address};
  }

  void grant(std::span<std::byte> memory) noexcept { granted_.push_back(memory); }

  void log(std::string what, std::span<const std::byte> bytes) {
    const auto sum = rdma::iwarp::crc32cUpdate(rdma::iwarp::crc32cStart, bytes.data(), bytes.size());
    delivered_.push_back(std::move(what) + " " + std::to_string(sum));
  }

  std::shared_ptr<rdma::Arena> arena_;
  /** What may have changed. */
  std::vector<std::span<std::byte>> granted_;
  rdma::iwarp::StagTable table_;
  std::array<std::uint32_t, 2> writable_{};
  std::array<std::uint32_t, 2> readable_{};
  std::uint32_t revoked_ = 0;
  std::deque<std::span<std::byte>> receives_;
  std::deque<rdma::iwarp::Receiver::ReadSink> reads_;
  std::uint32_t readRequests_ = 0;
  bool messageOpen_ = false;
  std::optional<std::uint32_t> placing_;
  std::span<const std::byte> written_;
  std::vector<std::string> delivered_;
};

}  // namespace iserfs::fuzz
