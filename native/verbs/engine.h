/**
 * What a provider's connections and listeners share: the loop, the channel of connection management events, and the devices. It
 * outlives the provider object for as long as anyone holds a connection or a listener, but does nothing any more then.
 */
#pragma once

#include <list>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "provider.h"
#include "verbs/device.h"
#include "verbs/event_loop.h"
#include "verbs/library.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

class CmHandler;

struct CmIdDeleter {
  const Library* library = nullptr;
  void operator()(rdma_cm_id* id) const noexcept { library->destroyId(id); }
};
/** After that no event of it comes any more. */
using CmId = std::unique_ptr<rdma_cm_id, CmIdDeleter>;

/** An event of connection management, without the memory of librdmacm. */
struct CmEvent {
  rdma_cm_event_type type;
  int status;
  std::vector<std::byte> privateData;
  std::uint8_t responderResources;
  std::uint8_t initiatorDepth;
};

/** Who an identifier belongs to. Its `context` points here. */
class CmHandler {
 public:
  virtual ~CmHandler() = default;
  /** `id` is the handler's own, or a new one for a connection request (the handler takes it). Loop thread. */
  virtual void cmEvent(rdma_cm_id* id, const CmEvent& event) = 0;
  /** The provider goes: lets go of every object of librdmacm and libibverbs. Loop thread. */
  virtual void shutDown() = 0;
};

class Engine : public std::enable_shared_from_this<Engine> {
 public:
  /** Throws ProviderError. */
  Engine();
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /** Ends everything and the threads. Owner's thread. Waits up to ten seconds where an iWARP peer never answered a connection. */
  void shutDown();

  const Library& library() const noexcept { return library_; }
  EventLoop& loop() noexcept { return loop_; }

  // Loop thread:

  /** Throws ProviderError. */
  CmId createId(CmHandler& handler);
  /** Takes over an identifier that a connection request brought. */
  CmId adoptId(rdma_cm_id* id, CmHandler& handler);
  /** Throws std::system_error. */
  std::shared_ptr<Device> device(ibv_context* context);
  /** Keeps `handler` until `forget`. */
  void keep(std::shared_ptr<CmHandler> handler) { handlers_.insert(std::move(handler)); }
  void forget(const std::shared_ptr<CmHandler>& handler) { handlers_.erase(handler); }
  /** Whether the route to that address begins at an RDMA device. Says no only when that is certain; asks nobody on the network. */
  bool hasRoute(const sockaddr_storage& to);
  /** Runs `work`, which may block for seconds, on a thread of its own, and then `after` on the loop's. */
  void bury(EventLoop::Task work, EventLoop::Task after);

 private:
  /** A thread that clears up. */
  struct Burial {
    std::thread thread;
    bool hasEnded = false;
  };

  void takeCmEvents();

  const Library& library_;
  EventLoop loop_;
  rdma_event_channel* channel_ = nullptr;
  std::unordered_map<ibv_context*, std::weak_ptr<Device>> devices_;
  std::unordered_set<std::shared_ptr<CmHandler>> handlers_;
  std::list<Burial> burials_;
};

/** `ADDRESS:PORT`, IPv6 in brackets. */
std::string formatAddress(const sockaddr& address);
/** Throws ProviderError `badAddress`. */
sockaddr_storage parseAddress(const Address& address);
/** Devices of this machine. Throws ProviderError `unsupported` where there is none. Any thread. */
std::vector<DeviceFacts> listDevices(const Library& library);

}  // namespace iserfs::rdma::verbs

#endif
