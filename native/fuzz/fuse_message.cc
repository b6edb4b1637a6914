/**
 * Fuzzes what reads from /dev/fuse. An input is a number of messages: bytes as they are, or a recipe for a message that is well-formed
 * but for what the recipe changes, which leads deeper. Each is taken apart, and goes through a channel whose device is a socket too:
 * both must come to the same, whoever waits gets one answer, and no byte comes from elsewhere than the message or the pages shown.
 */
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fuse/channel.h"
#include "must.h"

namespace {

using namespace iserfs::fuse;

using Bytes = std::vector<std::byte>;

constexpr std::uint32_t slotNumber = 3;
constexpr std::size_t longestMessage = 64 * 1024;
constexpr std::uint64_t imageInode = 2;
constexpr std::size_t pageCount = 40;
constexpr std::size_t hiddenPage = 20;
constexpr std::size_t imageSize = pageCount * pageLength - 1000;

/** Memory that lives as long as the process: a slot, and the pages of an image. */
std::byte* slotMemory() {
  static auto* const memory =
      static_cast<std::byte*>(::mmap(nullptr, maxTransfer, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  return memory;
}

const Bytes& imageBytes() {
  static const auto bytes = [] {
    Bytes made(imageSize);
    std::uint32_t value = 1;
    for (auto& byte : made) byte = static_cast<std::byte>((value = value * 1664525 + 1013904223) >> 24);
    return made;
  }();
  return bytes;
}

struct Form {
  std::uint32_t opcode;
  std::size_t bodyLength;
};

constexpr Form forms[] = {
    {FUSE_INIT, sizeof(fuse_init_in)},         {FUSE_LOOKUP, 12},
    {FUSE_GETATTR, sizeof(fuse_getattr_in)},   {FUSE_SETATTR, sizeof(fuse_setattr_in)},
    {FUSE_OPEN, sizeof(fuse_open_in)},         {FUSE_OPENDIR, sizeof(fuse_open_in)},
    {FUSE_READ, sizeof(fuse_read_in)},         {FUSE_READDIR, sizeof(fuse_read_in)},
    {FUSE_READDIRPLUS, sizeof(fuse_read_in)},  {FUSE_WRITE, sizeof(fuse_write_in)},
    {FUSE_STATFS, 0},                          {FUSE_RELEASE, sizeof(fuse_release_in)},
    {FUSE_RELEASEDIR, sizeof(fuse_release_in)}, {FUSE_FSYNC, sizeof(fuse_fsync_in)},
    {FUSE_FLUSH, sizeof(fuse_flush_in)},       {FUSE_IOCTL, sizeof(fuse_ioctl_in)},
    {FUSE_FALLOCATE, sizeof(fuse_fallocate_in)}, {FUSE_LSEEK, sizeof(fuse_lseek_in)},
    {FUSE_INTERRUPT, sizeof(fuse_interrupt_in)}, {FUSE_FORGET, sizeof(fuse_forget_in)},
    {FUSE_DESTROY, 0},                         {FUSE_CREATE, sizeof(fuse_create_in)},
};

template <typename Fields>
void put(Bytes& bytes, std::size_t at, const Fields& fields) {
  if (bytes.size() >= at + sizeof fields) std::memcpy(bytes.data() + at, &fields, sizeof fields);
}

/** A number that means something here, or any. */
std::uint64_t offsetFrom(FuzzedDataProvider& choices) {
  switch (choices.ConsumeIntegralInRange(0, 3)) {
    case 0: return choices.ConsumeIntegralInRange<std::uint64_t>(0, imageSize + 10);
    case 1: return choices.ConsumeIntegralInRange<std::uint64_t>(0, pageCount) * pageLength;
    case 2: return UINT64_MAX - choices.ConsumeIntegral<std::uint8_t>();
    default: return choices.ConsumeIntegral<std::uint64_t>();
  }
}

Bytes recipe(FuzzedDataProvider& choices) {
  const auto& form = forms[choices.ConsumeIntegralInRange<std::size_t>(0, std::size(forms) - 1)];
  fuse_in_header header{};
  header.opcode = choices.ConsumeIntegralInRange(0, 31) == 0 ? choices.ConsumeIntegral<std::uint32_t>() : form.opcode;
  header.unique = choices.ConsumeIntegral<std::uint64_t>();
  header.nodeid = choices.ConsumeBool() ? imageInode : choices.ConsumeIntegral<std::uint8_t>();
  auto bodyLength = form.bodyLength;
  if (choices.ConsumeIntegralInRange(0, 7) == 0) bodyLength = choices.ConsumeIntegralInRange<std::size_t>(0, 400);
  Bytes bytes = choices.ConsumeBytes<std::byte>(bodyLength);
  bytes.resize(bodyLength, choices.ConsumeBool() ? std::byte{0} : std::byte{0x61});
  bytes.insert(bytes.begin(), sizeof header, std::byte{0});
  if (form.opcode == FUSE_READ) {
    fuse_read_in fields{};
    fields.offset = offsetFrom(choices);
    fields.size = choices.ConsumeBool() ? choices.ConsumeIntegral<std::uint16_t>() : choices.ConsumeIntegral<std::uint32_t>();
    put(bytes, sizeof header, fields);
  } else if (form.opcode == FUSE_WRITE) {
    fuse_write_in fields{};
    fields.offset = offsetFrom(choices);
    const auto length = choices.ConsumeIntegralInRange<std::size_t>(0, 9000);
    fields.size = static_cast<std::uint32_t>(choices.ConsumeIntegralInRange(0, 15) == 0 ? choices.ConsumeIntegral<std::uint32_t>() : length);
    put(bytes, sizeof header, fields);
    bytes.insert(bytes.end(), length, static_cast<std::byte>(choices.ConsumeIntegral<std::uint8_t>()));
  } else if (form.opcode == FUSE_INIT) {
    fuse_init_in fields{};
    fields.major = choices.ConsumeIntegralInRange<std::uint32_t>(FUSE_KERNEL_VERSION - 1, FUSE_KERNEL_VERSION + 1);
    fields.minor = choices.ConsumeIntegralInRange<std::uint32_t>(20, 50);
    fields.max_readahead = choices.ConsumeIntegral<std::uint32_t>();
    fields.flags = choices.ConsumeIntegral<std::uint32_t>();
    fields.flags2 = choices.ConsumeIntegral<std::uint32_t>();
    put(bytes, sizeof header, fields);
  }
  header.len = choices.ConsumeIntegralInRange(0, 31) == 0 ? choices.ConsumeIntegral<std::uint32_t>() : static_cast<std::uint32_t>(bytes.size());
  put(bytes, 0, header);
  return bytes;
}

/** From memory of exactly those lengths, so that no byte behind them is read. */
std::optional<Parsed> parseExactly(const Bytes& message) {
  const auto middle = message.begin() + static_cast<std::ptrdiff_t>(std::min(message.size(), headLength));
  const Bytes head(message.begin(), middle);
  const Bytes rest(middle, message.end());
  auto parsed = parse(head, rest);
  MUST(parsed.has_value() == (message.size() >= sizeof(fuse_in_header)));
  if (!parsed.has_value()) return parsed;
  fuse_in_header header;
  std::memcpy(&header, message.data(), sizeof header);
  const auto& [treatment, error, fields] = *parsed;
  MUST(fields.opcode == header.opcode && fields.unique == header.unique && fields.inode == header.nodeid);
  MUST(error >= 0 && error < 4096);
  MUST(error == 0 || treatment == Treatment::answer || header.opcode == FUSE_INTERRUPT);
  MUST((treatment == Treatment::initialise) == (header.opcode == FUSE_INIT));
  MUST(fields.slot == noSlot);
  MUST(fields.name.size() <= maxName && fields.name.find('\0') == std::string::npos);
  if (treatment == Treatment::forward) {
    MUST(header.len == message.size());
    MUST(header.opcode != FUSE_WRITE || fields.length == rest.size());
  }
  return parsed;
}

/** A channel that has a slot and an image, and the kernel's end of it. */
class Ends {
 public:
  Ends() {
    int ends[2];
    MUST(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    kernel_ = Descriptor(ends[0]);
    channel_.emplace(Descriptor(ends[1]));
    channel_->addSlot({.number = slotNumber, .data = slotMemory()});
    auto& pages = channel_->pages();
    pages.setSize(imageInode, imageSize);
    pages.show(imageInode, 0, imageBytes());
    pages.hide(imageInode, hiddenPage * pageLength, pageLength);
  }

  void pass(const Bytes& message, const std::optional<Parsed>& parsed) {
    MUST(::send(kernel_.get(), message.data(), message.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(message.size()));
    MUST(channel_->read(1) == ReadEnd::limit);
    std::vector<Message> messages;
    channel_->take(messages, SIZE_MAX);
    const auto answer = receive();
    if (!parsed.has_value() || parsed->treatment == Treatment::ignore) {
      MUST(messages.empty() && !answer.has_value());
      return;
    }
    if (answer.has_value()) {
      MUST(messages.empty());
      checkAnswer(*answer, *parsed);
      return;
    }
    MUST(parsed->treatment == Treatment::forward && messages.size() == 1);
    checkForwarded(messages[0], *parsed, message);
  }

 private:
  std::optional<Bytes> receive() {
    static Bytes buffer(256 * 1024);
    const auto length = ::recv(kernel_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (length < 0) return std::nullopt;
    Bytes answer(buffer.begin(), buffer.begin() + length);
    MUST(::recv(kernel_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) < 0);
    return answer;
  }

  static void checkAnswer(const Bytes& answer, const Parsed& parsed) {
    fuse_out_header header;
    MUST(answer.size() >= sizeof header);
    std::memcpy(&header, answer.data(), sizeof header);
    const auto body = std::span(answer).subspan(sizeof header);
    MUST(header.len == answer.size() && header.unique == parsed.message.unique);
    MUST(header.error <= 0 && header.error > -4096 && (header.error == 0 || body.empty()));
    if (parsed.treatment == Treatment::answer) {
      MUST(header.error == -parsed.error && body.empty());
    } else if (parsed.treatment == Treatment::initialise) {
      MUST(header.error != 0 || body.size() == sizeof(fuse_init_out));
    } else {
      const auto& [offset, length] = std::pair(parsed.message.offset, parsed.message.length);
      MUST(parsed.message.opcode == FUSE_READ && parsed.message.inode == imageInode && header.error == 0);
      MUST(offset < imageSize && body.size() == std::min<std::uint64_t>(length, imageSize - offset));
      MUST(offset + body.size() <= hiddenPage * pageLength || offset >= (hiddenPage + 1) * pageLength);
      MUST(std::memcmp(body.data(), imageBytes().data() + offset, body.size()) == 0);
    }
  }

  void checkForwarded(const Message& found, const Parsed& parsed, const Bytes& message) {
    const auto& expected = parsed.message;
    MUST(found.opcode == expected.opcode && found.unique == expected.unique && found.inode == expected.inode);
    MUST(found.handle == expected.handle && found.offset == expected.offset && found.length == expected.length);
    MUST(found.flags == expected.flags && found.mode == expected.mode && found.uid == expected.uid && found.gid == expected.gid);
    MUST(found.name == expected.name);
    MUST(found.slot == (found.opcode == FUSE_WRITE ? slotNumber : noSlot));
    if (found.opcode != FUSE_WRITE) return;
    MUST(std::memcmp(slotMemory(), message.data() + headLength, found.length) == 0);
    MUST(!channel_->canRead());
    channel_->addSlot({.number = slotNumber, .data = slotMemory()});
  }

  Descriptor kernel_;
  std::optional<Channel> channel_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider choices(data, size);
  Ends ends;
  while (choices.remaining_bytes() > 0) {
    const auto message = choices.ConsumeBool()
                             ? recipe(choices)
                             : choices.ConsumeBytes<std::byte>(choices.ConsumeIntegralInRange<std::size_t>(1, longestMessage));
    if (message.empty()) continue;
    ends.pass(message, parseExactly(message));
  }
  return 0;
}
