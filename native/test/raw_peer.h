/** A TCP peer that does exactly what a test tells it, over a blocking socket with time limits. It speaks whatever bytes it is given. */
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "frames.h"
#include "iwarp/socket.h"
#include "support.h"

namespace iserfs::test {

class RawPeer {
 public:
  /** Connects. Throws std::runtime_error. */
  explicit RawPeer(const Address& to);
  explicit RawPeer(rdma::iwarp::Descriptor socket);

  /** Throws std::runtime_error where it cannot. */
  void send(std::span<const std::byte> bytes);
  /** Sends as many as there is room for now; how many that were. Throws std::runtime_error. */
  std::size_t offer(std::span<const std::byte> bytes);
  /** Room for about so many that the other end has not taken yet; false where this user may not have it. */
  bool makeRoom(int length);
  /** How many of those that were sent the other end's system has not taken. */
  std::size_t unsent() const;
  /** Exactly so many; fewer where the connection ends or five seconds pass. */
  Bytes receive(std::size_t length);
  /** The next FPDU; empty where the connection ends. */
  Bytes receiveFrame();
  /** True where the peer ends the connection within the time: by FIN or reset, after bytes that are ignored. */
  bool waitEnd(std::chrono::milliseconds limit = std::chrono::seconds(5));
  void shutdownSending();
  void reset();

 private:
  rdma::iwarp::Descriptor socket_;
};

/** Listens, for queue pairs that connect. */
class RawListener {
 public:
  RawListener();
  Address address() const { return address_; }
  RawPeer accept();

 private:
  rdma::iwarp::Descriptor socket_;
  Address address_;
};

/** Key, and the rest in hexadecimal. */
Bytes mpaRequest(const std::string& rest);
Bytes mpaReply(const std::string& rest);

}  // namespace iserfs::test
