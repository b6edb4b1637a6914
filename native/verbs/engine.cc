/** See engine.h. */
#include "verbs/engine.h"

#if ISERFS_HAVE_VERBS

#include <netdb.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "verbs/failures.h"

namespace iserfs::rdma::verbs {

namespace {

ProviderError channelError(int error) {
  if (error == ENODEV || error == ENOENT || error == ENOSYS) {
    return ProviderError({FailureCode::unsupported, "RDMA connections are not available: there is no /dev/infiniband/rdma_cm (kernel module rdma_ucm)"});
  }
  if (error == EACCES || error == EPERM) return ProviderError({FailureCode::unsupported, "no permission to open /dev/infiniband/rdma_cm"});
  return ProviderError({FailureCode::resources, "cannot open the channel of RDMA connection events: " + errorText(error)});
}

}  // namespace

Engine::Engine() : library_(Library::get()) {
  static_cast<void>(listDevices(library_));
  channel_ = library_.createEventChannel();
  if (channel_ == nullptr) {
    const auto error = channelError(errno);
    loop_.stop();
    throw error;
  }
  try {
    makeNonBlocking(channel_->fd);
    loop_.run([this] { loop_.watch(channel_->fd, [this] { takeCmEvents(); }); });
  } catch (...) {
    loop_.stop();
    library_.destroyEventChannel(channel_);
    throw;
  }
}

Engine::~Engine() { shutDown(); }

void Engine::shutDown() {
  loop_.run([this] {
    while (!handlers_.empty()) {
      const auto handler = *handlers_.begin();
      handler->shutDown();
      handlers_.erase(handler);
    }
  });
  // No more are added: every connection has ended. Each of these threads posts to the loop at its end.
  for (auto& burial : burials_) {
    if (burial.thread.joinable()) burial.thread.join();
  }
  loop_.run([this] {
    loop_.unwatch(channel_->fd);
    library_.destroyEventChannel(channel_);
    channel_ = nullptr;
  });
  loop_.stop();
}

CmId Engine::createId(CmHandler& handler) {
  rdma_cm_id* id = nullptr;
  if (library_.createId(channel_, &id, &handler, RDMA_PS_TCP) != 0) {
    const int error = errno;
    if (error == ENODEV) throw ProviderError({FailureCode::unsupported, "no RDMA device on this machine"});
    throw ProviderError(deviceFailure("connection identifier", error));
  }
  return CmId(id, {&library_});
}

CmId Engine::adoptId(rdma_cm_id* id, CmHandler& handler) {
  id->context = &handler;
  return CmId(id, {&library_});
}

std::shared_ptr<Device> Engine::device(ibv_context* context) {
  auto& known = devices_[context];
  auto device = known.lock();
  if (device == nullptr) known = device = std::make_shared<Device>(library_, loop_, context);
  return device;
}

bool Engine::hasRoute(const sockaddr_storage& to) {
  // Connecting a datagram socket sends nothing; it picks the source address of the route.
  const int probe = ::socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return true;
  sockaddr_storage from{};
  socklen_t length = sizeof from;
  const bool isRouted = ::connect(probe, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 &&
                        ::getsockname(probe, reinterpret_cast<sockaddr*>(&from), &length) == 0;
  ::close(probe);
  if (!isRouted) return true;
  auto& port = from.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&from)->sin6_port : reinterpret_cast<sockaddr_in*>(&from)->sin_port;
  port = 0;
  rdma_cm_id* id = nullptr;
  if (library_.createId(channel_, &id, nullptr, RDMA_PS_TCP) != 0) return true;
  const bool isOnDevice = library_.bindAddr(id, reinterpret_cast<sockaddr*>(&from)) == 0 || errno != ENODEV;
  library_.destroyId(id);
  return isOnDevice;
}

void Engine::bury(EventLoop::Task work, EventLoop::Task after) {
  burials_.remove_if([](Burial& burial) {
    if (burial.hasEnded) burial.thread.join();
    return burial.hasEnded;
  });
  auto& burial = burials_.emplace_back();
  try {
    burial.thread = std::thread([this, &burial, work, after] {
      work();
      loop_.post([&burial, after] {
        after();
        burial.hasEnded = true;
      });
    });
  } catch (const std::system_error&) {
    burials_.pop_back();
    work();
    after();
  }
}

void Engine::takeCmEvents() {
  rdma_cm_event* event = nullptr;
  while (channel_ != nullptr && library_.getCmEvent(channel_, &event) == 0) {
    CmEvent copy{event->event, event->status, {}, event->param.conn.responder_resources, event->param.conn.initiator_depth};
    const auto* data = static_cast<const std::byte*>(event->param.conn.private_data);
    if (data != nullptr) copy.privateData.assign(data, data + event->param.conn.private_data_len);
    rdma_cm_id* const id = event->id;
    auto* const handler = static_cast<CmHandler*>(id->context);
    // Acknowledged first: an identifier cannot be destroyed while events of it are held. One that is being buried may be gone then.
    library_.ackCmEvent(event);
    handler->cmEvent(id, copy);
  }
}

std::string formatAddress(const sockaddr& address) {
  const bool isV6 = address.sa_family == AF_INET6;
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  const auto length = static_cast<socklen_t>(isV6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
  if (::getnameinfo(&address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) return "";
  return isV6 ? "[" + std::string(host) + "]:" + port : std::string(host) + ":" + port;
}

sockaddr_storage parseAddress(const Address& address) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found) != 0) {
    throw ProviderError({FailureCode::badAddress, "not a numeric address: " + address.host});
  }
  sockaddr_storage storage{};
  std::memcpy(&storage, found->ai_addr, found->ai_addrlen);
  ::freeaddrinfo(found);
  return storage;
}

std::vector<DeviceFacts> listDevices(const Library& library) {
  int count = 0;
  ibv_device** list = library.getDeviceList(&count);
  std::vector<DeviceFacts> facts;
  for (int i = 0; list != nullptr && i < count; i++) {
    ibv_context* context = library.openDevice(list[i]);
    if (context == nullptr) continue;
    facts.push_back({list[i]->name, fabricOf(library, context)});
    library.closeDevice(context);
  }
  if (list != nullptr) library.freeDeviceList(list);
  if (!facts.empty()) return facts;
  throw ProviderError({FailureCode::unsupported, count > 0 ? "no permission to open the RDMA devices of this machine" : "no RDMA device on this machine"});
}

}  // namespace iserfs::rdma::verbs

#endif
