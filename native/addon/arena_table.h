/**
 * The arenas of an environment, as JavaScript sees them: external ArrayBuffers with a number. JavaScript names memory by that number,
 * an offset and a length, none of which is trusted. An arena leaves the table when its ArrayBuffer is collected or freed; its memory
 * goes when nothing that was posted or advertised refers to it any more (I4).
 */
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "provider/arena.h"

namespace iserfs::addon {

/** Thread: JavaScript, throughout. Finalizers of ArrayBuffers keep it alive beyond its environment's other state. */
class ArenaTable : public std::enable_shared_from_this<ArenaTable> {
 public:
  struct Allocated {
    std::uint32_t id;
    Napi::ArrayBuffer buffer;
  };
  /** Throws std::bad_alloc, also for a length of 0. */
  Allocated allocate(Napi::Env env, std::size_t length);
  /** Detaches `buffer`, so that no view of it reaches the memory any more. Throws std::invalid_argument where they do not belong together. */
  void free(std::uint32_t id, Napi::ArrayBuffer buffer);

  /** Throws std::invalid_argument for an unknown `id`, std::out_of_range beyond the arena's end. */
  rdma::Segment segment(std::uint32_t id, std::uint32_t offset, std::uint32_t length) const;

 private:
  std::unordered_map<std::uint32_t, std::shared_ptr<rdma::Arena>> arenas_;
};

}  // namespace iserfs::addon
