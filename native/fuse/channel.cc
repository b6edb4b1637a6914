#include "fuse/channel.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace iserfs::fuse {

namespace {

/** Requests of read-ahead and of asynchronous reads and writes that the kernel has out at once, and from where it calls that many. */
constexpr std::uint16_t maxBackground = 64;
constexpr std::uint16_t congestionThreshold = 48;
/** The oldest protocol that is spoken: Linux 4.20, which takes more than 32 pages. */
constexpr std::uint32_t oldestMinor = 28;
/** An answer's pieces beside its header; IOV_MAX is 1024. */
constexpr std::size_t maxPieces = 1000;

}  // namespace

Channel::Channel(Descriptor device) : device_(std::move(device)), slotEvent_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!slotEvent_.isOpen()) throw std::system_error(errno, std::generic_category(), "eventfd");
}

void Channel::close() noexcept {
  const std::lock_guard lock(queue_);
  isClosed_ = true;
  if (notifying_ == 0) device_.reset();
}

ReadEnd Channel::read(std::size_t most) {
  const std::unique_lock lock(reading_, std::try_to_lock);
  if (!lock.owns_lock()) return ReadEnd::busy;
  for (std::size_t count = 0; count < most; count++) {
    const auto end = readOne();
    if (end != ReadEnd::limit) return end;
  }
  return ReadEnd::limit;
}

bool Channel::takeSlotForReading() {
  if (current_.data != nullptr) return true;
  const std::lock_guard lock(queue_);
  if (slots_.empty()) return false;
  current_ = slots_.back();
  slots_.pop_back();
  hasSlot_.store(true, std::memory_order_relaxed);
  freeSlots_.store(slots_.size(), std::memory_order_relaxed);
  return true;
}

/** `limit` where a message was read. */
ReadEnd Channel::readOne() {
  if (hasEnded()) return ReadEnd::ended;
  if (!takeSlotForReading()) return noticeEnd() ? ReadEnd::ended : ReadEnd::starved;
  const std::array<iovec, 2> into{{{.iov_base = head_.data(), .iov_len = head_.size()}, {.iov_base = current_.data, .iov_len = maxTransfer}}};
  for (;;) {
    const auto length = ::readv(device_.get(), into.data(), static_cast<int>(into.size()));
    if (length > 0) {
      const auto headPart = std::min(static_cast<std::size_t>(length), head_.size());
      messagesRead_.fetch_add(1, std::memory_order_relaxed);
      handle({head_.data(), headPart}, static_cast<std::size_t>(length) - headPart);
      return ReadEnd::limit;
    }
    if (length < 0 && errno == EAGAIN) return ReadEnd::empty;
    // ENOENT: who asked gave up just now.
    if (length < 0 && (errno == EINTR || errno == ENOENT)) continue;
    hasEnded_.store(true, std::memory_order_release);
    return ReadEnd::ended;
  }
}

void Channel::handle(std::span<const std::byte> head, std::size_t restLength) {
  auto parsed = parse(head, {current_.data, restLength});
  if (!parsed.has_value()) return;
  auto& [treatment, error, message] = *parsed;
  switch (treatment) {
    case Treatment::initialise: return initialise(message.unique, head.subspan(sizeof(fuse_in_header)));
    case Treatment::answer: return answer(message.unique, error);
    case Treatment::ignore: return;
    case Treatment::forward: break;
  }
  if (message.opcode == FUSE_READ && answerFromMemory(message)) return;
  const std::lock_guard lock(queue_);
  if (message.opcode == FUSE_WRITE) {
    message.slot = current_.number;
    current_ = {};
    hasSlot_.store(false, std::memory_order_relaxed);
  }
  messages_.push_back(std::move(message));
  queued_.store(messages_.size() - firstMessage_, std::memory_order_release);
}

bool Channel::answerFromMemory(const Message& message) {
  if (message.length > maxTransfer) return false;
  PageIndex::Reading reading;
  pieces_.clear();
  if (!pages_.begin(message.inode, message.offset, message.length, pieces_, reading)) return false;
  if (pieces_.size() > maxPieces) return false;
  answer(message.unique, 0, pieces_);
  return true;
}

void Channel::initialise(std::uint64_t unique, std::span<const std::byte> body) {
  fuse_init_in wanted{};
  std::memcpy(&wanted, body.data(), std::min(body.size(), sizeof wanted));
  fuse_init_out terms{};
  terms.major = FUSE_KERNEL_VERSION;
  terms.minor = FUSE_KERNEL_MINOR_VERSION;
  const iovec answered{.iov_base = &terms, .iov_len = sizeof terms};
  // A newer kernel takes this answer for a question, and asks again in our version.
  if (wanted.major > FUSE_KERNEL_VERSION) return answer(unique, 0, {&answered, 1});
  if (wanted.major < FUSE_KERNEL_VERSION || wanted.minor < oldestMinor) return answer(unique, EPROTO);
  constexpr std::uint32_t useful = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |
                                   FUSE_PARALLEL_DIROPS | FUSE_ABORT_ERROR | FUSE_MAX_PAGES;
  terms.max_readahead = std::min<std::uint32_t>(wanted.max_readahead, maxTransfer);
  terms.flags = wanted.flags & useful;
  if ((wanted.flags & FUSE_INIT_EXT) != 0) {
    terms.flags |= FUSE_INIT_EXT;
    terms.flags2 = wanted.flags2 & directIoAllowMmap;
  }
  mixesDirectIo_.store((terms.flags2 & directIoAllowMmap) != 0, std::memory_order_relaxed);
  terms.max_background = maxBackground;
  terms.congestion_threshold = congestionThreshold;
  terms.max_write = maxTransfer;
  terms.time_gran = 1;
  terms.max_pages = maxTransfer / pageLength;
  answer(unique, 0, {&answered, 1});
  isInitialised_.store(true, std::memory_order_release);
}

void Channel::take(std::vector<Message>& messages, std::size_t most) {
  const std::lock_guard lock(queue_);
  const auto count = std::min(most, messages_.size() - firstMessage_);
  const auto first = messages_.begin() + static_cast<std::ptrdiff_t>(firstMessage_);
  messages.assign(std::make_move_iterator(first), std::make_move_iterator(first + static_cast<std::ptrdiff_t>(count)));
  firstMessage_ += count;
  // What was taken goes when it is more than what is left.
  if (firstMessage_ * 2 >= messages_.size()) {
    messages_.erase(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(firstMessage_));
    firstMessage_ = 0;
  }
  queued_.store(messages_.size() - firstMessage_, std::memory_order_release);
}

void Channel::addSlot(Slot slot) {
  const std::lock_guard lock(queue_);
  slots_.push_back(slot);
  freeSlots_.store(slots_.size(), std::memory_order_relaxed);
  if (!isSlotAwaited_) return;
  isSlotAwaited_ = false;
  const std::uint64_t one = 1;
  static_cast<void>(::write(slotEvent_.get(), &one, sizeof one));
}

bool Channel::awaitSlot() noexcept {
  const std::lock_guard lock(queue_);
  std::uint64_t count = 0;
  static_cast<void>(::read(slotEvent_.get(), &count, sizeof count));
  isSlotAwaited_ = !canRead();
  return isSlotAwaited_;
}

bool Channel::noticeEnd() noexcept {
  pollfd one{.fd = device_.get(), .events = 0, .revents = 0};
  if (::poll(&one, 1, 0) > 0) hasEnded_.store(true, std::memory_order_release);
  return hasEnded();
}

std::optional<std::uint32_t> Channel::takeSlot() {
  const std::lock_guard lock(queue_);
  if (slots_.empty()) return std::nullopt;
  const auto number = slots_.back().number;
  slots_.pop_back();
  freeSlots_.store(slots_.size(), std::memory_order_relaxed);
  return number;
}

void Channel::answer(std::uint64_t unique, int error, std::span<const iovec> body) noexcept {
  std::array<iovec, maxPieces + 1> pieces;
  const bool hasBody = error == 0 && !body.empty();
  std::size_t length = sizeof(fuse_out_header);
  std::size_t count = 1;
  if (hasBody) {
    for (const auto& piece : body) {
      if (count == pieces.size()) return answer(unique, EIO);
      pieces[count++] = piece;
      length += piece.iov_len;
    }
  }
  fuse_out_header header{.len = static_cast<std::uint32_t>(length), .error = -error, .unique = unique};
  pieces[0] = {.iov_base = &header, .iov_len = sizeof header};
  ssize_t written = 0;
  do {
    written = ::writev(device_.get(), pieces.data(), static_cast<int>(count));
  } while (written < 0 && errno == EINTR);
  // Who asked gave up (ENOENT), or the connection has ended: nobody waits. Anything else refuses what was said, and somebody does wait.
  const bool isRefused = written < 0 && errno != ENOENT && errno != ENODEV && errno != ECONNABORTED && errno != ENOTCONN && errno != EPERM &&
                         errno != EPIPE && errno != EBADF;
  if (isRefused && hasBody) answer(unique, EIO);
}

int Channel::notify(int code, std::span<const iovec> body) noexcept {
  std::array<iovec, 4> pieces;
  std::size_t length = sizeof(fuse_out_header);
  std::size_t count = 1;
  for (const auto& piece : body.first(std::min(body.size(), pieces.size() - 1))) {
    pieces[count++] = piece;
    length += piece.iov_len;
  }
  fuse_out_header header{.len = static_cast<std::uint32_t>(length), .error = code, .unique = 0};
  pieces[0] = {.iov_base = &header, .iov_len = sizeof header};
  {
    const std::lock_guard lock(queue_);
    if (isClosed_) return EBADF;
    notifying_++;
  }
  const int error = ::writev(device_.get(), pieces.data(), static_cast<int>(count)) < 0 ? errno : 0;
  const std::lock_guard lock(queue_);
  if (--notifying_ == 0 && isClosed_) device_.reset();
  return error;
}

}  // namespace iserfs::fuse
