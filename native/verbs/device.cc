/** Devices, protection domains and registrations: see device.h. */
#include "verbs/device.h"

#if ISERFS_HAVE_VERBS

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "verbs/failures.h"

namespace iserfs::rdma::verbs {

namespace {

int orUnknown(int error) { return error == 0 ? EIO : error; }

}  // namespace

void makeNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) throw std::system_error(errno, std::generic_category(), "fcntl");
}

std::string fabricOf(const Library& library, ibv_context* context) {
  if (context->device->transport_type == IBV_TRANSPORT_IWARP) return "iWARP";
  ibv_port_attr port;
  std::memset(&port, 0, sizeof port);
  const int failed = library.queryPort(context, 1, reinterpret_cast<_compat_ibv_port_attr*>(&port));
  return failed == 0 && port.link_layer == IBV_LINK_LAYER_ETHERNET ? "RoCE" : "InfiniBand";
}

// ---- device ----

Device::Device(const Library& library, EventLoop& loop, ibv_context* context)
    : library_(library), loop_(loop), context_(context), name_(context->device->name), fabric_(fabricOf(library, context)) {
  const int failed = library.queryDevice(context, &attributes_);
  if (failed != 0) throw deviceError("answer", failed);
  quirks_ = quirksOf(attributes_);
  hasWindows_ = probeWindows();
  channel_ = library.createCompChannel(context);
  if (channel_ == nullptr) throw deviceError("completion channel", orUnknown(errno));
  try {
    makeNonBlocking(channel_->fd);
    makeNonBlocking(context->async_fd);
    loop_.watch(channel_->fd, [this] { takeCompletionEvents(); });
    loop_.watch(context->async_fd, [this] { takeAsyncEvents(); });
  } catch (...) {
    loop_.unwatch(channel_->fd);
    library_.destroyCompChannel(channel_);
    throw;
  }
}

Device::~Device() {
  loop_.unwatch(context_->async_fd);
  loop_.unwatch(channel_->fd);
  library_.destroyCompChannel(channel_);
}

/** Drivers that announce type 2 windows and have none are asked for one. */
bool Device::probeWindows() const {
  if ((attributes_.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)) == 0) return false;
  if (context_->ops.alloc_mw == nullptr) return false;
  ibv_pd* pd = library_.allocPd(context_);
  if (pd == nullptr) return false;
  ibv_mw* window = ::ibv_alloc_mw(pd, IBV_MW_TYPE_2);
  if (window != nullptr) ::ibv_dealloc_mw(window);
  library_.deallocPd(pd);
  return window != nullptr;
}

std::shared_ptr<ProtectionDomain> Device::protectionDomain() {
  // The regions that iWARP needs for RDMA Reads are open to the whole domain.
  if (!hasWindows_ || isIwarp()) return std::make_shared<ProtectionDomain>(shared_from_this());
  auto domain = shared_.lock();
  if (domain == nullptr) shared_ = domain = std::make_shared<ProtectionDomain>(shared_from_this());
  return domain;
}

void Device::takeCompletionEvents() {
  ibv_cq* cq;
  void* context;
  while (library_.getCqEvent(channel_, &cq, &context) == 0) {
    library_.ackCqEvents(cq, 1);
    loop_.heat(static_cast<CompletionSource*>(context)->self());
  }
}

void Device::takeAsyncEvents() {
  ibv_async_event event;
  while (library_.getAsyncEvent(context_, &event) == 0) {
    switch (event.event_type) {
      case IBV_EVENT_QP_FATAL:
      case IBV_EVENT_QP_REQ_ERR:
      case IBV_EVENT_QP_ACCESS_ERR:
      case IBV_EVENT_COMM_EST:
        // The pair may be another provider's: it cannot be destroyed before the event is acknowledged.
        static_cast<QueuePairOwner*>(event.element.qp->qp_context)->asyncEvent(event.event_type);
        break;
      default:
        break;
    }
    library_.ackAsyncEvent(&event);
  }
}

// ---- protection domain ----

ProtectionDomain::ProtectionDomain(std::shared_ptr<Device> device) : device_(std::move(device)), pd_(device_->library().allocPd(device_->context())) {
  if (pd_ == nullptr) throw deviceError("protection domain", orUnknown(errno));
}

ProtectionDomain::~ProtectionDomain() {
  arenas_.clear();
  device_->library().deallocPd(pd_);
}

ibv_mr* ProtectionDomain::arena(const std::shared_ptr<Arena>& arena) {
  const std::lock_guard lock(mutex_);
  const auto found = arenas_.find(arena->id());
  if (found != arenas_.end()) return found->second.region.get();
  sweepLocked();
  const int access = IBV_ACCESS_LOCAL_WRITE | (device_->hasWindows() ? static_cast<int>(IBV_ACCESS_MW_BIND) : 0);
  auto region = registerMemory(arena->data(), arena->length(), access);
  return arenas_.emplace(arena->id(), RegisteredArena{arena, std::move(region)}).first->second.region.get();
}

Region ProtectionDomain::segment(const Segment& segment, int access) const { return registerMemory(segment.data(), segment.length, access); }

Region ProtectionDomain::registerMemory(std::byte* data, std::size_t length, int access) const {
  const auto& library = device_->library();
  ibv_mr* region = library.regMr(pd_, data, length, access);
  if (region == nullptr) throw registrationError(length, orUnknown(errno));
  return Region(region, [&library](ibv_mr* mr) { library.deregMr(mr); });
}

Window ProtectionDomain::window() const {
  ibv_mw* window = ::ibv_alloc_mw(pd_, IBV_MW_TYPE_2);
  if (window == nullptr) throw deviceError("memory window", orUnknown(errno));
  return Window(window, [](ibv_mw* mw) { return ::ibv_dealloc_mw(mw); });
}

void ProtectionDomain::sweep() {
  const std::lock_guard lock(mutex_);
  sweepLocked();
}

void ProtectionDomain::sweepLocked() {
  std::erase_if(arenas_, [](const auto& entry) { return entry.second.arena.expired(); });
}

}  // namespace iserfs::rdma::verbs

#endif
