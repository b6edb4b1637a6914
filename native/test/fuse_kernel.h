/**
 * What the kernel would say over /dev/fuse, and what it is told: messages as linux/fuse.h lays them out, and a socket that keeps their
 * bounds in place of the device. Waiting is bounded; what does not come is a failed test.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "fuse/channel.h"
#include "fuse/descriptor.h"
#include "fuse/kernel.h"
#include "support.h"

namespace iserfs::test {

using Bytes = std::vector<std::byte>;

template <typename Fields>
Bytes bytesOfFields(const Fields& fields) {
  Bytes bytes(sizeof fields);
  std::memcpy(bytes.data(), &fields, sizeof fields);
  return bytes;
}

/** The start of an answer; zeroes where it is shorter. */
template <typename Fields>
Fields fieldsOf(std::span<const std::byte> bytes) {
  Fields fields{};
  std::memcpy(&fields, bytes.data(), std::min(bytes.size(), sizeof fields));
  return fields;
}

Bytes textBytes(std::string_view text);

/** A header of the right length, and what follows it. */
Bytes kernelMessage(std::uint32_t opcode, std::uint64_t unique, std::uint64_t inode, std::span<const std::byte> body = {});
Bytes initMessage(std::uint64_t unique, const fuse_init_in& fields);
Bytes readMessage(std::uint64_t unique, std::uint64_t inode, std::uint64_t offset, std::uint32_t length);
Bytes writeMessage(std::uint64_t unique, std::uint64_t inode, std::uint64_t offset, std::span<const std::byte> data);

/** The kernel's end. Messages are of less than 200 KiB: sockets take no longer ones from everybody. */
class FuseKernel {
 public:
  struct Answer {
    /** Of a notice, its code. */
    std::int32_t error = 0;
    std::uint64_t unique = 0;
    Bytes body;
  };

  FuseKernel();

  /** The other end, once. */
  fuse::Descriptor device() { return std::move(device_); }

  void send(std::span<const std::byte> message);
  /** The next answer or notice, whose length must be right; nothing after five seconds, and where the other end is gone. */
  std::optional<Answer> answer();
  /** The same, whatever its bytes are. */
  std::optional<Bytes> received();
  bool hasAnswer();
  /** As the end of a connection is. */
  void close() { socket_.reset(); }

 private:
  fuse::Descriptor socket_;
  fuse::Descriptor device_;
};

/** A slot of an arena's memory, filled with `canary`. */
struct LentSlot {
  explicit LentSlot(std::uint32_t slotNumber);
  fuse::Slot slot() const { return {.number = number, .data = segment.data()}; }

  static constexpr std::byte canary{0xa5};
  std::uint32_t number;
  Segment segment;
};

}  // namespace iserfs::test
