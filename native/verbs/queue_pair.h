/** The face that a connection shows its owner. Dropped without a close, it closes abruptly. */
#pragma once

#include <memory>

#include "provider.h"
#include "verbs/connection.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

/** Methods: owner's thread. */
class VerbsQueuePair final : public QueuePair {
 public:
  explicit VerbsQueuePair(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}
  VerbsQueuePair(const VerbsQueuePair&) = delete;
  VerbsQueuePair& operator=(const VerbsQueuePair&) = delete;
  ~VerbsQueuePair() override { connection_->close(CloseMode::abrupt); }

  void postReceive(std::uint32_t workRequestId, Segment segment) override { connection_->postReceive(workRequestId, std::move(segment)); }
  void postSend(std::uint32_t workRequestId, std::span<const Segment> segments, std::optional<std::uint32_t> invalidate) override {
    connection_->postSend(workRequestId, segments, invalidate);
  }
  void postWrite(std::uint32_t workRequestId, Segment segment, RemoteAddress to) override { connection_->postWrite(workRequestId, std::move(segment), to); }
  void postRead(std::uint32_t workRequestId, Segment segment, RemoteAddress from) override { connection_->postRead(workRequestId, std::move(segment), from); }
  RemoteAddress advertise(Segment segment, Access access) override { return connection_->advertise(std::move(segment), access); }
  void revoke(std::uint32_t tag) override { connection_->revoke(tag); }
  void close(CloseMode mode) override { connection_->close(mode); }

 private:
  std::shared_ptr<Connection> connection_;
};

}  // namespace iserfs::rdma::verbs

#endif
