#include "raw_peer.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include "iwarp/bytes.h"

namespace iserfs::test {

using namespace iserfs::rdma::iwarp;

namespace {

constexpr timeval patience{5, 0};

void makePatient(const Descriptor& socket) {
  ::fcntl(socket.number(), F_SETFL, ::fcntl(socket.number(), F_GETFL) & ~O_NONBLOCK);
  ::setsockopt(socket.number(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket.number(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  sendAtOnce(socket);
}

}  // namespace

RawPeer::RawPeer(const Address& to) {
  const SocketAddress address = resolve(to);
  socket_ = makeSocket(address);
  makePatient(socket_);
  if (::connect(socket_.number(), address.get(), address.length) != 0) throw std::runtime_error(errorText(errno));
}

std::size_t RawPeer::offer(std::span<const std::byte> bytes) {
  const auto sent = ::send(socket_.number(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<std::size_t>(sent);
  if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
  throw std::runtime_error(errorText(errno));
}

bool RawPeer::makeRoom(int length) {
  return ::setsockopt(socket_.number(), SOL_SOCKET, SO_SNDBUFFORCE, &length, sizeof length) == 0;
}

std::size_t RawPeer::unsent() const {
  int length = 0;
  if (::ioctl(socket_.number(), SIOCOUTQ, &length) != 0) throw std::runtime_error(errorText(errno));
  return static_cast<std::size_t>(length);
}

RawPeer::RawPeer(Descriptor socket) : socket_(std::move(socket)) { makePatient(socket_); }

void RawPeer::send(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) throw std::runtime_error("the peer takes nothing: " + errorText(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
}

Bytes RawPeer::receive(std::size_t length) {
  Bytes bytes(length);
  std::size_t filled = 0;
  while (filled < length) {
    const ssize_t received = ::recv(socket_.number(), &bytes[filled], length - filled, 0);
    if (received <= 0) break;
    filled += static_cast<std::size_t>(received);
  }
  bytes.resize(filled);
  return bytes;
}

Bytes RawPeer::receiveFrame() {
  Bytes bytes = receive(fpduLengthField);
  if (bytes.size() < fpduLengthField) return {};
  const std::size_t inner = fpduLengthField + loadBe16(bytes.data());
  return bytes + receive(inner - fpduLengthField + padLength(inner) + crcLength);
}

bool RawPeer::waitEnd(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd waited{socket_.number(), POLLIN, 0};
    if (::poll(&waited, 1, static_cast<int>(left.count())) <= 0) return false;
    std::array<std::byte, 4096> ignored;
    const ssize_t received = ::recv(socket_.number(), ignored.data(), ignored.size(), 0);
    if (received <= 0) return true;
  }
}

void RawPeer::shutdownSending() { ::shutdown(socket_.number(), SHUT_WR); }

void RawPeer::reset() {
  resetOnClose(socket_);
  socket_ = Descriptor();
}

RawListener::RawListener() : socket_(listenAt(resolve({"127.0.0.1", 0}))) {
  makePatient(socket_);
  const std::string text = localAddress(socket_).text();
  address_ = {"127.0.0.1", static_cast<std::uint16_t>(std::stoi(text.substr(text.rfind(':') + 1)))};
}

RawPeer RawListener::accept() {
  Descriptor accepted(::accept4(socket_.number(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(accepted);
  return RawPeer(std::move(accepted));
}

Bytes mpaRequest(const std::string& rest) { return bytesOf("4d504120494420526571204672616d65" + rest); }
Bytes mpaReply(const std::string& rest) { return bytesOf("4d504120494420526570204672616d65" + rest); }

}  // namespace iserfs::test
