#include "socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace iserfs::rdma::iwarp {

namespace {

/** 60 KiB of payload with the longest header, pad and CRC: whole pages, and within 16 bits of length. */
constexpr std::size_t loopbackFpdu = 60 * 1024 + 32;
/** TCP's own default, for connections that do not say. */
constexpr std::size_t leastFpdu = 536;

template <typename Family>
Family as(const sockaddr_storage& storage) noexcept {
  Family address;
  std::memcpy(&address, &storage, sizeof address);
  return address;
}

bool isMapped(const in6_addr& address) noexcept {
  constexpr std::array<unsigned char, 12> prefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(address.s6_addr, prefix.data(), prefix.size()) == 0;
}

std::string numericHost(const SocketAddress& address) {
  std::array<char, NI_MAXHOST> host{};
  if (::getnameinfo(address.get(), address.length, host.data(), host.size(), nullptr, 0, NI_NUMERICHOST) != 0) return "?";
  return host.data();
}

template <typename Value>
void setOption(const Descriptor& socket, int level, int name, const Value& value) noexcept {
  // What cannot be set only makes things slower.
  static_cast<void>(::setsockopt(socket.number(), level, name, &value, sizeof value));
}

Transfer outcome(ssize_t length) noexcept {
  if (length >= 0) return {.length = static_cast<std::size_t>(length)};
  if (errno == EAGAIN || errno == EWOULDBLOCK) return {.wouldBlock = true};
  return {.error = errno};
}

msghdr headerOf(std::span<const iovec> parts) noexcept {
  msghdr header{};
  header.msg_iov = const_cast<iovec*>(parts.data());
  header.msg_iovlen = parts.size();
  return header;
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

// sockaddr is the prefix of every kind of address.
const sockaddr* SocketAddress::get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
sockaddr* SocketAddress::get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }

bool SocketAddress::isLoopback() const noexcept {
  if (storage.ss_family == AF_INET) {
    return (ntohl(as<sockaddr_in>(storage).sin_addr.s_addr) >> 24) == 127;
  }
  if (storage.ss_family != AF_INET6) return false;
  const in6_addr address = as<sockaddr_in6>(storage).sin6_addr;
  return isMapped(address) ? address.s6_addr[12] == 127 : std::memcmp(&address, &in6addr_loopback, sizeof address) == 0;
}

std::string SocketAddress::text() const {
  if (storage.ss_family == AF_INET) {
    return numericHost(*this) + ":" + std::to_string(ntohs(as<sockaddr_in>(storage).sin_port));
  }
  if (storage.ss_family != AF_INET6) return "?";
  const auto address = as<sockaddr_in6>(storage);
  const std::string port = std::to_string(ntohs(address.sin6_port));
  if (!isMapped(address.sin6_addr)) return "[" + numericHost(*this) + "]:" + port;
  const unsigned char* last = &address.sin6_addr.s6_addr[12];
  return std::to_string(last[0]) + "." + std::to_string(last[1]) + "." + std::to_string(last[2]) + "." + std::to_string(last[3]) +
         ":" + port;
}

SocketAddress resolve(const Address& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found) != 0 || found == nullptr) {
    throw ProviderError({FailureCode::badAddress, "'" + address.host + "' is not a numeric IP address"});
  }
  SocketAddress resolved;
  std::memcpy(&resolved.storage, found->ai_addr, found->ai_addrlen);
  resolved.length = found->ai_addrlen;
  ::freeaddrinfo(found);
  return resolved;
}

SocketAddress localAddress(const Descriptor& socket) noexcept {
  SocketAddress address;
  if (::getsockname(socket.number(), address.get(), &address.length) != 0) address.storage.ss_family = AF_UNSPEC;
  return address;
}

SocketAddress peerAddress(const Descriptor& socket) noexcept {
  SocketAddress address;
  if (::getpeername(socket.number(), address.get(), &address.length) != 0) address.storage.ss_family = AF_UNSPEC;
  return address;
}

Descriptor makeSocket(const SocketAddress& address) {
  Descriptor socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) {
    const int error = errno;
    throw ProviderError({error == EAFNOSUPPORT ? FailureCode::unsupported : FailureCode::resources, errorText(error)});
  }
  return socket;
}

Descriptor listenAt(const SocketAddress& address) {
  Descriptor socket = makeSocket(address);
  setOption(socket, SOL_SOCKET, SO_REUSEADDR, 1);
  if (::bind(socket.number(), address.get(), address.length) != 0 || ::listen(socket.number(), SOMAXCONN) != 0) {
    throw ProviderError({FailureCode::badAddress, errorText(errno)});
  }
  return socket;
}

void sendAtOnce(const Descriptor& socket) noexcept { setOption(socket, IPPROTO_TCP, TCP_NODELAY, 1); }

void resetOnClose(const Descriptor& socket) noexcept { setOption(socket, SOL_SOCKET, SO_LINGER, linger{1, 0}); }

int takeError(const Descriptor& socket) noexcept {
  int error = 0;
  socklen_t length = sizeof error;
  return ::getsockopt(socket.number(), SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

Transfer sendGathered(const Descriptor& socket, std::span<const iovec> parts) noexcept {
  const msghdr header = headerOf(parts);
  ssize_t length;
  do {
    length = ::sendmsg(socket.number(), &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (length < 0 && errno == EINTR);
  return outcome(length);
}

Transfer receiveScattered(const Descriptor& socket, std::span<const iovec> parts) noexcept {
  msghdr header = headerOf(parts);
  ssize_t length;
  do {
    length = ::recvmsg(socket.number(), &header, MSG_DONTWAIT);
  } while (length < 0 && errno == EINTR);
  if (length == 0) return {.isEnd = true};
  return outcome(length);
}

std::size_t suitableFpdu(const Descriptor& socket) noexcept {
  if (peerAddress(socket).isLoopback()) return loopbackFpdu;
  int segment = 0;
  socklen_t length = sizeof segment;
  if (::getsockopt(socket.number(), IPPROTO_TCP, TCP_MAXSEG, &segment, &length) != 0 || segment < 0) segment = 0;
  return std::clamp(static_cast<std::size_t>(segment), leastFpdu, loopbackFpdu) / 4 * 4;
}

std::string errorText(int error) {
  std::string text = std::generic_category().message(error);
  if (!text.empty()) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  return text;
}

Failure failureOfConnect(int error) {
  switch (error) {
    case ECONNREFUSED: return {FailureCode::refused, "nothing listens there (connection refused)"};
    case ETIMEDOUT: return {FailureCode::timedOut, "no answer (connection timed out)"};
    case ECONNRESET:
    case EPIPE: return {FailureCode::rejected, "the peer closed the connection instead of answering the MPA request"};
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM: return {FailureCode::resources, errorText(error)};
    case EINVAL:
    case EAFNOSUPPORT: return {FailureCode::badAddress, errorText(error)};
    default: return {FailureCode::unreachable, errorText(error)};
  }
}

Failure failureOfConnection(int error) {
  switch (error) {
    case ETIMEDOUT: return {FailureCode::timedOut, "the peer does not answer any more (connection timed out)"};
    case ECONNRESET:
    case EPIPE: return {FailureCode::reset, "the peer reset the connection"};
    default: return {FailureCode::reset, "the connection broke: " + errorText(error)};
  }
}

}  // namespace iserfs::rdma::iwarp
