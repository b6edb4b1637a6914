/**
 * The verbs provider: RDMA devices of this machine, through libibverbs and librdmacm. Where the headers were not there when this was
 * compiled, or the libraries or devices are not there now, it says so.
 */
#include "provider.h"
#include "verbs/library.h"

#if ISERFS_HAVE_VERBS

#include "verbs/connection.h"
#include "verbs/engine.h"
#include "verbs/listener.h"
#include "verbs/queue_pair.h"

namespace iserfs::rdma {

namespace {

class VerbsProvider final : public Provider {
 public:
  VerbsProvider() : engine_(std::make_shared<verbs::Engine>()) {}
  VerbsProvider(const VerbsProvider&) = delete;
  VerbsProvider& operator=(const VerbsProvider&) = delete;
  ~VerbsProvider() override { engine_->shutDown(); }

  std::shared_ptr<QueuePair> connect(const Address& to, const QueuePairOptions& options, std::uint32_t timeoutMs,
                                     std::shared_ptr<QueuePairEvents> events) override {
    const auto connection = std::make_shared<verbs::Connection>(engine_, options, std::move(events));
    engine_->loop().post([connection, to, timeoutMs] {
      try {
        connection->connect(verbs::parseAddress(to), std::chrono::milliseconds(timeoutMs));
      } catch (const ProviderError& error) {
        connection->fail(error.failure());
      }
    });
    return std::make_shared<verbs::VerbsQueuePair>(connection);
  }

  std::unique_ptr<Listener> listen(const Address& at, std::shared_ptr<ListenerEvents> events) override {
    return verbs::makeListener(engine_, at, std::move(events));
  }

 private:
  std::shared_ptr<verbs::Engine> engine_;
};

}  // namespace

std::shared_ptr<Provider> makeVerbsProvider() { return std::make_shared<VerbsProvider>(); }

std::vector<DeviceFacts> listVerbsDevices() { return verbs::listDevices(verbs::Library::get()); }

}  // namespace iserfs::rdma

#else

namespace iserfs::rdma {

namespace {
ProviderError notCompiled() {
  return ProviderError({FailureCode::unsupported, "this build has no RDMA verbs: the headers of libibverbs and librdmacm were not there when it was made"});
}
}  // namespace

std::shared_ptr<Provider> makeVerbsProvider() { throw notCompiled(); }

std::vector<DeviceFacts> listVerbsDevices() { throw notCompiled(); }

}  // namespace iserfs::rdma

#endif
