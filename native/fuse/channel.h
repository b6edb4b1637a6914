/**
 * A connection with the kernel over /dev/fuse: reads what it asks, answers what needs nobody else, and keeps the rest in order for
 * JavaScript. Any thread may read, one at a time; who answers, answers directly. What a write brings is read into slots, memory that
 * JavaScript lends, so that it lies there page aligned and is not copied. Knows no N-API, no names and no event loop.
 */
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "fuse/descriptor.h"
#include "fuse/kernel.h"
#include "fuse/message.h"
#include "fuse/page_index.h"

namespace iserfs::fuse {

/** Memory of `maxTransfer` bytes that the data of one write is read into. Its number is JavaScript's. */
struct Slot {
  std::uint32_t number = noSlot;
  std::byte* data = nullptr;
};

/** Why nothing more was read. */
enum class ReadEnd : std::uint8_t {
  /** There is nothing now. */
  empty,
  /** As many messages were read as were wanted: there may be more. */
  limit,
  /** There is no slot; nothing can be read, since it might be a write. */
  starved,
  /** Another thread reads. */
  busy,
  /** The connection has ended, and stays ended. */
  ended,
};

class Channel {
 public:
  /** `device` is of /dev/fuse, or anything that keeps the bounds of messages, and does not block. Throws std::system_error. */
  explicit Channel(Descriptor device);

  /** Closes the device: when nobody reads or answers any more, and as soon as nobody notifies. */
  void close() noexcept;

  /** Reads up to `most` messages. Any thread. */
  ReadEnd read(std::size_t most);
  /** What was read and is for JavaScript, up to `most` messages, in order; `messages` must be empty. Any thread. */
  void take(std::vector<Message>& messages, std::size_t most);
  bool hasMessages() const noexcept { return queued_.load(std::memory_order_acquire) > 0; }

  /** Lends a slot. Any thread. */
  void addSlot(Slot slot);
  /** Takes a slot back that nothing is read into; nothing where there is none. Any thread. */
  std::optional<std::uint32_t> takeSlot();
  /** Slots that wait for data, that of the next message left out. Any thread. */
  std::size_t freeSlots() const noexcept { return freeSlots_.load(std::memory_order_relaxed); }
  bool canRead() const noexcept { return freeSlots() > 0 || hasSlot_.load(std::memory_order_relaxed); }
  /** Whether nothing can be read for want of a slot: then `slotEvent` is readable when one has been lent. Any thread. */
  bool awaitSlot() noexcept;
  int slotEvent() const noexcept { return slotEvent_.get(); }
  /** Looks, without reading, whether the connection has ended: what was not read is lost then. Any thread. */
  bool noticeEnd() noexcept;

  /** Answers with `error`, 0 or a positive errno, and where that is 0 with the bytes of `body`. Any thread. */
  void answer(std::uint64_t unique, int error, std::span<const iovec> body = {}) noexcept;
  /**
   * Tells the kernel something; may wait for answers that it waits for: not on a thread that gives some. 0 or a positive errno, EBADF
   * once it was closed.
   */
  int notify(int code, std::span<const iovec> body) noexcept;

  PageIndex& pages() noexcept { return pages_; }
  int device() const noexcept { return device_.get(); }
  bool isInitialised() const noexcept { return isInitialised_.load(std::memory_order_acquire); }
  bool hasEnded() const noexcept { return hasEnded_.load(std::memory_order_acquire); }
  /** Whether the kernel is coherent between direct and cached handles of one file. After `isInitialised`. */
  bool mixesDirectIo() const noexcept { return mixesDirectIo_.load(std::memory_order_relaxed); }
  /** Messages that were read so far. */
  std::uint64_t messagesRead() const noexcept { return messagesRead_.load(std::memory_order_relaxed); }

 private:
  // With the lock for reading held.
  bool takeSlotForReading();
  ReadEnd readOne();
  void handle(std::span<const std::byte> head, std::size_t restLength);
  void initialise(std::uint64_t unique, std::span<const std::byte> body);
  bool answerFromMemory(const Message& message);

  Descriptor device_;
  Descriptor slotEvent_;
  PageIndex pages_;
  std::atomic<bool> isInitialised_{false};
  std::atomic<bool> hasEnded_{false};
  std::atomic<bool> mixesDirectIo_{false};
  std::atomic<std::uint64_t> messagesRead_{0};

  /** Held by who reads. */
  std::mutex reading_;
  Slot current_;
  alignas(8) std::array<std::byte, headLength> head_{};
  std::vector<iovec> pieces_;

  /** Guards what follows. */
  std::mutex queue_;
  std::vector<Message> messages_;
  std::size_t firstMessage_ = 0;
  std::vector<Slot> slots_;
  bool isSlotAwaited_ = false;
  int notifying_ = 0;
  bool isClosed_ = false;
  std::atomic<std::size_t> queued_{0};
  std::atomic<std::size_t> freeSlots_{0};
  std::atomic<bool> hasSlot_{false};
};

}  // namespace iserfs::fuse
