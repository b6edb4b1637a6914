/** What the arguments of this addon are made of (see node-api/arguments.h). Throws Napi::Error. */
#pragma once

#include <napi.h>

#include <cstdint>
#include <span>

#include "addon/arena_table.h"
#include "node-api/arguments.h"
#include "provider/provider.h"

namespace iserfs::addon {

using node_api::booleanFrom;
using node_api::elementsFrom;
using node_api::textFrom;
using node_api::unsignedFrom;

/** A bigint from 0 to 2^64 - 1. */
std::uint64_t unsigned64From(Napi::Value value, const char* what);

/** Three arguments from `first` on: the number of an arena, an offset and a length. Throws what `ArenaTable::segment` does. */
rdma::Segment segmentFrom(const Napi::CallbackInfo& info, std::size_t first, const ArenaTable& arenas);
/** The object that `src/iser/rdma/addon.ts` calls AddonQueuePairOptions. */
rdma::QueuePairOptions optionsFrom(Napi::Value value, const ArenaTable& arenas);

Napi::Uint8Array bytesTo(Napi::Env env, std::span<const std::byte> bytes);

}  // namespace iserfs::addon
