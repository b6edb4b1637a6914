/**
 * The sending half of a connection: messages in; FPDUs out of it, as gather lists over headers of its own and the messages' memory,
 * which is never copied. One message at a time goes out whole, so messages of a class never mix. It knows no sockets, tags or
 * completions; which message is next, and what the end of one means, is the host's business.
 *
 * Thread: one at a time. Calls of the host come from inside `gather` and `sent`.
 */
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "provider.h"
#include "rdmap.h"

namespace iserfs::rdma::iwarp {

/** What is to be sent. It keeps its memory until it is destroyed. */
struct Message {
  MessageType type = MessageType::send;
  /** Of the request that it stands for. */
  std::uint32_t workRequestId = 0;
  /** Send: one after the other. Write and Read Response: the first. Read Request: the sink. */
  std::array<Segment, 2> segments{};
  /** Write and Read Response: where to. Send: the tag to invalidate. */
  std::uint32_t tag = 0;
  std::uint64_t address = 0;
  /** Read Response: our tag that is read from. Read Request: what it asks for. */
  std::uint32_t sourceTag = 0;
  ReadRequest request;

  /** Of the memory. */
  std::uint32_t length() const noexcept { return segments[0].length + segments[1].length; }
};

class Transmitter {
 public:
  class Host {
   public:
    virtual ~Host() = default;
    /** The next message to send, moved out. False where there is none. */
    virtual bool nextMessage(Message& message) noexcept = 0;
    /** All bytes of it were taken; its memory is not read again. */
    virtual void messageSent(const Message& message) noexcept = 0;
  };

  /** `maximumFpdu`: bytes, length field and CRC included; 128 to 65 536, a multiple of 4. */
  Transmitter(Host& host, bool addCrc, std::size_t maximumFpdu);

  Transmitter(const Transmitter&) = delete;
  Transmitter& operator=(const Transmitter&) = delete;

  bool addsCrc() const noexcept { return addCrc_; }

  /** The next bytes of the stream: whole frames until they are about `enough`. Empty where there is nothing to send. */
  std::span<const iovec> gather(std::size_t enough);
  /** The first `length` bytes of what `gather` gave were taken. */
  void sent(std::size_t length);

  /** Nothing is queued here; messages that the host has are another matter. */
  bool isIdle() const noexcept { return frameCount_ == 0 && current_.empty(); }
  /** Forgets all messages. Nothing refers to their memory any more. */
  void clear() noexcept;
  /** What is left of the frame that has gone out in part, and a Terminate message behind it; forgets the rest. Valid until `clear`. */
  std::span<const iovec> gatherTerminate(std::span<const std::byte> payload);

 private:
  /** An FPDU. Its payload is where the message has it. */
  struct Frame {
    std::array<std::byte, untaggedHeaderLength + readRequestLength> header{};
    std::size_t headerLength = 0;
    std::array<iovec, 2> payload{};
    std::size_t payloadCount = 0;
    /** Pad and CRC. */
    std::array<std::byte, 3 + crcLength> trailer{};
    std::size_t trailerLength = 0;
    std::size_t length = 0;
    bool endsMessage = false;
  };

  static constexpr std::size_t frameRing = 64;
  static constexpr std::size_t partsOfFrame = 4;

  bool buildFrame();
  void finishFrame(Frame& frame) const noexcept;
  std::size_t buildSegment(Frame& frame, const Message& message);
  void addParts(const Frame& frame, std::size_t skip);
  Frame& frameAt(std::size_t i) noexcept { return frames_[(firstFrame_ + i) % frameRing]; }

  Host& host_;
  const bool addCrc_;
  const std::size_t maximumFpdu_;

  std::vector<Frame> frames_;
  std::size_t firstFrame_ = 0;
  std::size_t frameCount_ = 0;
  /** Bytes of the first frame that were taken. */
  std::size_t firstFrameSent_ = 0;

  /** Messages with frames that are not sent, or not built: only the last can be unfinished. */
  std::deque<Message> current_;
  bool lastIsBuilt_ = true;
  std::uint32_t builtOfLast_ = 0;
  std::uint32_t sendNumber_ = 1;
  std::uint32_t readRequestNumber_ = 1;
  std::vector<iovec> parts_;
};

}  // namespace iserfs::rdma::iwarp
