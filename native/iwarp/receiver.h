/**
 * The receiving half of a connection: a stream of bytes in; FPDUs, DDP segments and RDMAP messages out of it (RFC 5044 §4, RFC 5041,
 * RFC 5040). It names the memory where the next bytes belong (`buffers`), and is told how many have been put there (`filled`). It
 * checks every rule that a peer can break and says in words which one was. Whose memory it is, and what becomes of a message, is
 * the host's business; there are no sockets here, so a fuzzer can drive it.
 *
 * Large payloads are read straight to where they belong. Small frames are read many at a time into a staging buffer and copied from
 * there, because a system call for each would cost more than the copy. Which it is follows from the frames that came last.
 *
 * Payload is in place before its CRC is known to be right. No harm is in that: a frame's header is checked against what the peer may
 * reach either way, nothing is delivered before the check, and memory that the connection may write is undefined once it fails.
 *
 * Thread: one at a time. Calls of the host come from inside `filled`.
 */
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "mpa.h"
#include "rdmap.h"

namespace iserfs::rdma::iwarp {

class Receiver {
 public:
  /** A Read of ours whose response is due. */
  struct ReadSink {
    std::uint32_t tag = 0;
    std::uint64_t address = 0;
    std::span<std::byte> memory;
  };

  /** What a tag and an address come to: memory, or the rule that was broken. */
  struct Place {
    std::byte* memory = nullptr;
    std::optional<Violation> violation;
  };

  class Host {
   public:
    virtual ~Host() = default;

    /** The memory of the oldest posted receive. Nothing where none is posted. */
    virtual std::optional<std::span<std::byte>> beginMessage() noexcept = 0;
    /** All of the message is in that receive. `invalidated`: the tag that is to be revoked with it. */
    virtual std::optional<Violation> endMessage(std::uint32_t length, std::optional<std::uint32_t> invalidated) noexcept = 0;

    /** Where to put `length` bytes, at least 1, of an RDMA Write. The memory must stay until `endWrite`. */
    virtual Place beginWrite(std::uint32_t tag, std::uint64_t address, std::uint32_t length) noexcept = 0;
    virtual void endWrite(std::uint32_t tag) noexcept = 0;

    /** The oldest Read of ours that is outstanding. Nothing where none is. Its memory must stay until `endRead`. */
    virtual std::optional<ReadSink> oldestRead() noexcept = 0;
    virtual void endRead() noexcept = 0;

    /** The peer wants to read. */
    virtual std::optional<Violation> readRequested(const ReadRequest& request) noexcept = 0;
  };

  enum class State : std::uint8_t {
    running,
    /** The peer broke a rule: `violation()`. Nothing more is taken. */
    violated,
    /** The peer sent Terminate: `terminateMessage()`. Nothing more is taken. */
    terminated,
  };

  /** `checkCrc`: as agreed by MPA. `rtr`: the message that the peer begins with, if it was agreed on one. */
  Receiver(Host& host, bool checkCrc, Rtr rtr = Rtr::none);

  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  /** Where the next bytes of the stream belong, in order. At least one byte, until `state` is not running any more. */
  std::span<const iovec> buffers() noexcept;
  /** That many bytes, at least 1 and no more than `buffers` had room for, are there. */
  State filled(std::size_t length) noexcept;
  /** The same with bytes that are somewhere else. */
  State feed(std::span<const std::byte> bytes) noexcept;

  State state() const noexcept { return state_; }
  const Violation& violation() const noexcept { return violation_; }
  /** Length field and DDP header of the segment at fault, with the Read Request if it is one: for our Terminate. */
  std::span<const std::byte> offendingHeader() const noexcept { return {header_.data(), headerFilled_}; }
  std::span<const std::byte> terminateMessage() const noexcept { return {control_.data(), controlFilled_}; }

  /** Whole FPDUs taken so far. */
  std::uint64_t frameCount() const noexcept { return frames_; }
  /** Neither a frame nor a message is under way. */
  bool isIdle() const noexcept;

 private:
  enum class Stage : std::uint8_t { header, payload, trailer };

  /** A message of several segments, of which some are still to come. */
  struct OpenTagged {
    bool isOpen = false;
    MessageType type = MessageType::write;
    std::uint32_t tag = 0;
    std::uint64_t next = 0;
  };
  struct OpenSend {
    bool isOpen = false;
    MessageType type = MessageType::send;
    std::span<std::byte> memory;
    std::uint32_t length = 0;
  };

  std::size_t available() const noexcept { return end_ - begin_; }
  void process() noexcept;
  bool takeHeader() noexcept;
  bool takePayload() noexcept;
  bool takeTrailer() noexcept;
  void advancePayload(std::size_t length) noexcept;

  std::optional<Violation> beginSegment() noexcept;
  std::optional<Violation> beginTagged() noexcept;
  std::optional<Violation> beginReadResponse() noexcept;
  std::optional<Violation> beginUntagged() noexcept;
  std::optional<Violation> beginSend() noexcept;
  std::optional<Violation> beginControl(std::size_t least, std::size_t most) noexcept;
  std::optional<Violation> endSegment() noexcept;
  std::optional<Violation> endTagged() noexcept;
  std::optional<Violation> endSend() noexcept;
  std::optional<Violation> endReadRequest() noexcept;

  void fail(Violation violation) noexcept;

  Host& host_;
  const bool checkCrc_;
  bool rtrSendExpected_;
  State state_ = State::running;
  Violation violation_;

  /** Read from the stream and not yet taken: [begin_, end_). Empty whenever payload is still to come. */
  std::vector<std::byte> staging_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::array<iovec, 2> buffers_{};
  /** Small frames in a row until frames count as small again. */
  unsigned largeFrameCredit_ = 0;

  Stage stage_ = Stage::header;
  SegmentHeader segment_;
  std::array<std::byte, untaggedHeaderLength + readRequestLength> header_{};
  std::size_t headerFilled_ = 0;
  std::uint32_t crc_ = 0;
  /** Where the payload goes, and how much of it is to come. */
  std::byte* place_ = nullptr;
  std::size_t remaining_ = 0;
  std::size_t pad_ = 0;

  /** Payload of a Read Request or a Terminate. */
  std::array<std::byte, 128> control_{};
  std::size_t controlFilled_ = 0;

  OpenTagged tagged_;
  OpenSend send_;
  std::uint32_t readReceived_ = 0;
  std::uint32_t nextSendNumber_ = 1;
  std::uint32_t nextReadRequestNumber_ = 1;
  std::uint64_t frames_ = 0;
};

}  // namespace iserfs::rdma::iwarp
