/** The software iWARP provider: what `makeIwarpProvider` makes, out of the parts of this folder. */
#include "listener.h"
#include "open_endpoints.h"
#include "provider.h"
#include "queue_pair.h"
#include "socket_loop.h"

namespace iserfs::rdma {

namespace {

using namespace iwarp;

class IwarpProvider final : public Provider {
 public:
  ~IwarpProvider() override {
    endpoints_->abandonAll();
    loop_->end();
  }

  int turnDescriptor() const noexcept override { return loop_->descriptor(); }
  void turn() noexcept override { loop_->turn(); }

  std::shared_ptr<QueuePair> connect(const Address& to, const QueuePairOptions& options, std::uint32_t timeoutMs,
                                     std::shared_ptr<QueuePairEvents> events) override {
    const auto queuePair = std::make_shared<IwarpQueuePair>(loop_, endpoints_, options, std::move(events));
    endpoints_->add(queuePair);
    loop_->post([queuePair, to, timeoutMs] { queuePair->connect(to, std::chrono::milliseconds(timeoutMs)); });
    return queuePair->handle();
  }

  std::unique_ptr<Listener> listen(const Address& at, std::shared_ptr<ListenerEvents> events) override {
    return iwarp::listen(loop_, endpoints_, at, std::move(events));
  }

 private:
  const std::shared_ptr<SocketLoop> loop_ = std::make_shared<SocketLoop>();
  const std::shared_ptr<OpenEndpoints> endpoints_ = std::make_shared<OpenEndpoints>();
};

}  // namespace

std::shared_ptr<Provider> makeIwarpProvider() { return std::make_shared<IwarpProvider>(); }

}  // namespace iserfs::rdma
