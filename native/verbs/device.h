/**
 * An RDMA device and the memory that is registered with it.
 *
 * Arenas are registered for local access only, once for each protection domain, when they are first used; no key that leads to a
 * whole arena ever has remote access. What the peer may reach is a memory window or a region of its own for each advertisement.
 * Windows belong to one queue pair, so connections may share a domain (and the pinning of its arenas) there. A region may be used
 * through any queue pair of its domain, so where there are no windows, and on iWARP, where RDMA Reads need regions, each connection
 * has a domain of its own.
 */
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "arena.h"
#include "verbs/device_quirks.h"
#include "verbs/event_loop.h"
#include "verbs/library.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

class Device;

/** A registered range of memory. Keeps nothing alive: the holder keeps the memory and the domain. */
using Region = std::unique_ptr<ibv_mr, std::function<void(ibv_mr*)>>;
/** A type 2 memory window. */
using Window = std::unique_ptr<ibv_mw, int (*)(ibv_mw*)>;

/** Methods: any thread. */
class ProtectionDomain {
 public:
  /** Throws std::system_error. */
  explicit ProtectionDomain(std::shared_ptr<Device> device);
  ProtectionDomain(const ProtectionDomain&) = delete;
  ProtectionDomain& operator=(const ProtectionDomain&) = delete;
  ~ProtectionDomain();

  ibv_pd* get() const noexcept { return pd_; }
  Device& device() const noexcept { return *device_; }

  /** Local access to all of `arena`, registered at first use. Valid while the arena and the domain live. Throws std::system_error. */
  ibv_mr* arena(const std::shared_ptr<Arena>& arena);
  /** Lets go of arenas that are gone. */
  void sweep();
  /** Exactly `segment`, with `access` (IBV_ACCESS_*). Throws std::system_error. */
  Region segment(const Segment& segment, int access) const;
  /** Throws std::system_error. */
  Window window() const;

 private:
  struct RegisteredArena {
    std::weak_ptr<Arena> arena;
    Region region;
  };

  Region registerMemory(std::byte* data, std::size_t length, int access) const;
  void sweepLocked();

  std::shared_ptr<Device> device_;
  ibv_pd* pd_;
  std::mutex mutex_;
  std::unordered_map<std::uint32_t, RegisteredArena> arenas_;
};

/** Construction, destruction and methods: loop thread. */
class Device : public std::enable_shared_from_this<Device> {
 public:
  /** Watches for completions and for events of the device. Throws std::system_error. */
  Device(const Library& library, EventLoop& loop, ibv_context* context);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device();

  const Library& library() const noexcept { return library_; }
  ibv_context* context() const noexcept { return context_; }
  const ibv_device_attr& attributes() const noexcept { return attributes_; }
  const DeviceQuirks& quirks() const noexcept { return quirks_; }
  const std::string& name() const noexcept { return name_; }
  /** `iWARP`, `RoCE`, `InfiniBand`. */
  const std::string& fabric() const noexcept { return fabric_; }
  bool isIwarp() const noexcept { return context_->device->transport_type == IBV_TRANSPORT_IWARP; }
  /** Whether advertisements are type 2 memory windows, else regions. */
  bool hasWindows() const noexcept { return hasWindows_; }
  /** Whether a Send with Invalidate of the peer revokes an advertisement: on InfiniBand and RoCE no region that was registered from user space. */
  bool canPeerInvalidate() const noexcept { return hasWindows_ || quirks_.canPeerInvalidateRegions; }
  /** Send with Invalidate to the peer. */
  bool canInvalidate() const noexcept { return (attributes_.device_cap_flags & IBV_DEVICE_MEM_MGT_EXTENSIONS) != 0; }
  ibv_comp_channel* completionChannel() const noexcept { return channel_; }

  /** For a new connection. Throws std::system_error. */
  std::shared_ptr<ProtectionDomain> protectionDomain();
  /** Hands events of the device to the queue pairs that they are about. Also called before one is judged to have ended. */
  void takeAsyncEvents();

 private:
  void takeCompletionEvents();
  bool probeWindows() const;

  const Library& library_;
  EventLoop& loop_;
  ibv_context* context_;
  ibv_device_attr attributes_{};
  DeviceQuirks quirks_;
  std::string name_;
  std::string fabric_;
  bool hasWindows_ = false;
  ibv_comp_channel* channel_ = nullptr;
  std::weak_ptr<ProtectionDomain> shared_;
};

/** Who a queue pair's context points to: events of the device come here, on any provider's loop thread, while the pair exists. */
class QueuePairOwner {
 public:
  virtual void asyncEvent(ibv_event_type type) noexcept = 0;

 protected:
  ~QueuePairOwner() = default;
};

/** `iWARP`, `RoCE`, `InfiniBand`. Any thread. */
std::string fabricOf(const Library& library, ibv_context* context);
void makeNonBlocking(int fd);

}  // namespace iserfs::rdma::verbs

#endif
