/**
 * TCP sockets of the operating system: ownership of descriptors, numeric addresses, options, and errors as causes in words. It knows
 * no protocol above TCP.
 */
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "provider.h"

namespace iserfs::rdma::iwarp {

/** Closes its descriptor. */
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) noexcept : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    Descriptor previous(std::exchange(number_, std::exchange(other.number_, -1)));
    return *this;
  }
  ~Descriptor();

  int number() const noexcept { return number_; }
  explicit operator bool() const noexcept { return number_ >= 0; }

 private:
  int number_ = -1;
};

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_storage);

  const sockaddr* get() const noexcept;
  sockaddr* get() noexcept;
  bool isLoopback() const noexcept;
  /** `ADDRESS:PORT`, IPv6 in brackets; IPv4 in IPv6 as IPv4. */
  std::string text() const;
};

/** Throws `ProviderError` (`badAddress`) where `host` is no numeric address. */
SocketAddress resolve(const Address& address);
SocketAddress localAddress(const Descriptor& socket) noexcept;
SocketAddress peerAddress(const Descriptor& socket) noexcept;

/** Non-blocking, for a connection to or a listener at `address`. Throws `ProviderError` (`resources`, `unsupported`). */
Descriptor makeSocket(const SocketAddress& address);
/** Throws `ProviderError` (`badAddress`, `resources`). */
Descriptor listenAt(const SocketAddress& address);

/** For a socket of a connection: nothing waits for more bytes to send with. */
void sendAtOnce(const Descriptor& socket) noexcept;
/** The next close is a reset. */
void resetOnClose(const Descriptor& socket) noexcept;
/** The error that the socket has, and forgets by this; 0 if none. */
int takeError(const Descriptor& socket) noexcept;

/** What became of an attempt to move bytes. */
struct Transfer {
  std::size_t length = 0;
  /** There is no room, or nothing there, now. */
  bool wouldBlock = false;
  /** Receiving: the peer has closed its direction. */
  bool isEnd = false;
  /** Nothing more will go. */
  int error = 0;
};

/** Never block, never raise SIGPIPE. */
Transfer sendGathered(const Descriptor& socket, std::span<const iovec> parts) noexcept;
Transfer receiveScattered(const Descriptor& socket, std::span<const iovec> parts) noexcept;

/** Bytes of the largest FPDU that suits the connection: one TCP segment, or far more where there is no wire. A multiple of 4. */
std::size_t suitableFpdu(const Descriptor& socket) noexcept;

/** Why a connection could not be made, or broke. */
Failure failureOfConnect(int error);
Failure failureOfConnection(int error);

/** `text` as the library has it, lower case: `connection refused`. */
std::string errorText(int error);

}  // namespace iserfs::rdma::iwarp
