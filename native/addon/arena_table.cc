#include "addon/arena_table.h"

#include <stdexcept>

namespace iserfs::addon {

ArenaTable::Allocated ArenaTable::allocate(Napi::Env env, std::size_t length) {
  auto arena = rdma::Arena::allocate(length);
  const std::uint32_t id = arena->id();
  auto finalizer = [table = shared_from_this(), arena](Napi::Env, void*) { table->arenas_.erase(arena->id()); };
  auto buffer = Napi::ArrayBuffer::New(env, arena->data(), arena->length(), std::move(finalizer));
  arenas_.emplace(id, std::move(arena));
  return {.id = id, .buffer = buffer};
}

void ArenaTable::free(std::uint32_t id, Napi::ArrayBuffer buffer) {
  const auto found = arenas_.find(id);
  if (found == arenas_.end() || buffer.Data() != found->second->data()) throw std::invalid_argument("no such arena");
  buffer.Detach();
  arenas_.erase(id);
}

rdma::Segment ArenaTable::segment(std::uint32_t id, std::uint32_t offset, std::uint32_t length) const {
  const auto found = arenas_.find(id);
  if (found == arenas_.end()) throw std::invalid_argument("no such arena");
  if (offset > found->second->length() || length > found->second->length() - offset) throw std::out_of_range("beyond the arena's end");
  return {.arena = found->second, .offset = offset, .length = length};
}

}  // namespace iserfs::addon
