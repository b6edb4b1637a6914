/** How a connection ends, whatever the reason: see connection.h. All of it runs on the loop's thread. */
#include "verbs/connection.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

namespace {

using namespace std::chrono_literals;

/** For what is posted to be sent, and then for the peer's end of the connection. */
constexpr auto closeTimeout = 5s;

}  // namespace

void Connection::closeOnLoop(CloseMode mode) {
  const auto self = shared_from_this();
  if (id_ == nullptr) return;
  if (mode == CloseMode::abrupt || !isConnected_) return finish({});
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::established) return;
    phase_ = Phase::draining;
  }
  if (!isAwaitingReason_) startTimer(closeTimeout, {FailureCode::timedOut, "the peer did not take what was sent before the close"});
  disconnectWhenDrained();
}

void Connection::disconnectWhenDrained() {
  {
    const std::lock_guard lock(mutex_);
    if (phase_ != Phase::draining || sends_.posted() != 0) return;
    phase_ = Phase::disconnecting;
  }
  if (library_.disconnect(id_.get()) != 0) return finish({});
  if (!isAwaitingReason_) startTimer(closeTimeout, {});
}

void Connection::fail(Failure failure) { finish(std::move(failure)); }

void Connection::shutDown() { finish({}); }

void Connection::breakQueuePair() noexcept {
  if (queuePair_ == nullptr) return;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  static_cast<void>(library_.modifyQp(queuePair_.get(), &attributes, IBV_QP_STATE));
}

bool Connection::isQueuePairBroken() const noexcept {
  ibv_qp_attr attributes{};
  ibv_qp_init_attr initial{};
  return library_.queryQp(queuePair_.get(), &attributes, IBV_QP_STATE, &initial) == 0 && attributes.qp_state == IBV_QPS_ERR;
}

void Connection::finish(Failure failure) {
  const auto self = shared_from_this();
  if (events_ == nullptr) return;
  const auto events = std::move(events_);
  events_ = nullptr;
  stopTimer();
  connecting_.reset();
  if (device_ != nullptr) device_->takeAsyncEvents();

  bool tellPeer = isConnected_ && !device_->isIwarp();
  bool isOurs;
  {
    const std::lock_guard lock(mutex_);
    isOurs = phase_ != Phase::established || isCloseWanted_;
    tellPeer = tellPeer && phase_ != Phase::disconnecting;
    phase_ = Phase::ended;
    breakQueuePair();
  }
  bindCompleted_.notify_all();
  if (tellPeer) library_.disconnect(id_.get());

  std::vector<Completion> completions;
  if (isConnectCalled_ && !isConnected_ && device_->isIwarp()) {
    buryObjects();
  } else {
    destroyObjects(completions);
  }
  if (hasPeerClosed_ && !isOurs && hasFlushedSends_ && failure.code == FailureCode::none) {
    failure = {FailureCode::reset, "the peer closed the connection while requests were under way"};
  }
  const Failure reason = reasonOr(std::move(failure));
  if (isConnected_ && !completions.empty()) events->completed(completions);
  events->closed(reason);
  engine_->forget(self);
}

void Connection::destroyObjects(std::vector<Completion>& completions) {
  std::vector<WorkQueue::Entry> released;
  if (completionQueue_ != nullptr) {
    ibv_wc work{};
    const std::lock_guard lock(mutex_);
    while (::ibv_poll_cq(completionQueue_.get(), 1, &work) > 0) completed(work, completions, released);
  }
  std::unique_ptr<ibv_qp, QueuePairDeleter> queuePair;
  {
    const std::lock_guard lock(mutex_);
    // A window keeps its queue pair from being destroyed.
    advertisements_.reset();
    queuePair = std::move(queuePair_);
  }
  // Not under the lock: this waits for another provider's thread, if that is just telling of an event of this queue pair.
  queuePair.reset();
  {
    const std::lock_guard lock(mutex_);
    hasFlushedSends_ = hasFlushedSends_ || sends_.posted() != 0;
    for (auto* queue : {&sends_, &receives_}) {
      for (auto& entry : queue->releaseAll()) {
        const auto status = entry.isRefused ? Status::failed : Status::flushed;
        completions.push_back({entry.workRequestId, entry.opcode, status, false, 0, entry.length});
        released.push_back(std::move(entry));
      }
    }
    completions.insert(completions.end(), refused_.begin(), refused_.end());
    refused_.clear();
  }
  released.clear();
  completionQueue_.reset();
  {
    const std::lock_guard lock(mutex_);
    domain_.reset();
  }
  device_.reset();
  id_.reset();
}

void Connection::buryObjects() {
  // The broken queue pair cannot be connected any more, so nothing reaches the memory of the receives; they keep it meanwhile.
  struct Remains {
    std::shared_ptr<Connection> connection;
    CmId id;
    std::unique_ptr<ibv_cq, CompletionQueueDeleter> completionQueue;
    std::unique_ptr<ibv_qp, QueuePairDeleter> queuePair;
  };
  const auto remains = std::make_shared<Remains>();
  remains->connection = std::static_pointer_cast<Connection>(shared_from_this());
  remains->id = std::move(id_);
  remains->completionQueue = std::move(completionQueue_);
  {
    const std::lock_guard lock(mutex_);
    remains->queuePair = std::move(queuePair_);
  }
  engine_->bury(
      [remains] {
        // The id first: librdmacm touches its queue pair when it hands out an event, which the loop does until the id is gone.
        remains->id.reset();
        remains->queuePair.reset();
        remains->completionQueue.reset();
      },
      [remains] {
        auto& connection = *remains->connection;
        {
          const std::lock_guard lock(connection.mutex_);
          connection.receives_.releaseAll();
          connection.advertisements_.reset();
          connection.domain_.reset();
        }
        connection.device_.reset();
        remains->connection.reset();
      });
}

}  // namespace iserfs::rdma::verbs

#endif
