#include "fuse_kernel.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <csignal>
#include <stdexcept>

namespace iserfs::test {

namespace {

constexpr int patienceMs = 5000;
constexpr std::size_t longestMessage = 200 * 1024;

}  // namespace

Bytes textBytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Bytes kernelMessage(std::uint32_t opcode, std::uint64_t unique, std::uint64_t inode, std::span<const std::byte> body) {
  fuse_in_header header{};
  header.len = static_cast<std::uint32_t>(sizeof header + body.size());
  header.opcode = opcode;
  header.unique = unique;
  header.nodeid = inode;
  header.uid = 1000;
  header.gid = 1000;
  header.pid = 4321;
  Bytes bytes = bytesOfFields(header);
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}

Bytes initMessage(std::uint64_t unique, const fuse_init_in& fields) { return kernelMessage(FUSE_INIT, unique, 0, bytesOfFields(fields)); }

Bytes readMessage(std::uint64_t unique, std::uint64_t inode, std::uint64_t offset, std::uint32_t length) {
  fuse_read_in fields{};
  fields.offset = offset;
  fields.size = length;
  return kernelMessage(FUSE_READ, unique, inode, bytesOfFields(fields));
}

Bytes writeMessage(std::uint64_t unique, std::uint64_t inode, std::uint64_t offset, std::span<const std::byte> data) {
  fuse_write_in fields{};
  fields.offset = offset;
  fields.size = static_cast<std::uint32_t>(data.size());
  Bytes body = bytesOfFields(fields);
  body.insert(body.end(), data.begin(), data.end());
  return kernelMessage(FUSE_WRITE, unique, inode, body);
}

FuseKernel::FuseKernel() {
  // Writing to a device raises no signal; writing to a socket without a peer does.
  std::signal(SIGPIPE, SIG_IGN);
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("socketpair");
  socket_ = fuse::Descriptor(ends[0]);
  device_ = fuse::Descriptor(ends[1]);
  ::fcntl(device_.get(), F_SETFL, O_NONBLOCK);
  // Nobody reads, where a message finds no room for so long.
  const timeval patience{.tv_sec = patienceMs / 1000, .tv_usec = 0};
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

void FuseKernel::send(std::span<const std::byte> message) {
  REQUIRE(::send(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(message.size()));
}

bool FuseKernel::hasAnswer() {
  pollfd one{.fd = socket_.get(), .events = POLLIN, .revents = 0};
  return ::poll(&one, 1, 0) > 0;
}

std::optional<Bytes> FuseKernel::received() {
  pollfd one{.fd = socket_.get(), .events = POLLIN, .revents = 0};
  int ready = 0;
  do {
    ready = ::poll(&one, 1, patienceMs);
  } while (ready < 0 && errno == EINTR);
  if (ready <= 0) return std::nullopt;
  Bytes bytes(longestMessage);
  const auto length = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (length <= 0) return std::nullopt;
  bytes.resize(static_cast<std::size_t>(length));
  return bytes;
}

std::optional<FuseKernel::Answer> FuseKernel::answer() {
  auto message = received();
  if (!message.has_value()) return std::nullopt;
  auto& bytes = *message;
  const auto header = fieldsOf<fuse_out_header>(bytes);
  CHECK(bytes.size() >= sizeof header);
  CHECK(header.len == bytes.size());
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(std::min(bytes.size(), sizeof header)));
  return Answer{.error = header.error, .unique = header.unique, .body = std::move(bytes)};
}

LentSlot::LentSlot(std::uint32_t slotNumber) : number(slotNumber), segment(memory(fuse::maxTransfer)) {
  std::memset(segment.data(), std::to_integer<int>(canary), segment.length);
}

}  // namespace iserfs::test
