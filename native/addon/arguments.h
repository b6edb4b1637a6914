/** Arguments from JavaScript, checked: nothing is wrapped around, cut off or taken for another type. Throws Napi::Error. */
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "addon/arena_table.h"
#include "provider/provider.h"

namespace iserfs::addon {

/** An integer from 0 to `most`, in words `what`. */
std::uint32_t unsignedFrom(Napi::Value value, const char* what, std::uint32_t most = UINT32_MAX);
bool booleanFrom(Napi::Value value, const char* what);
std::string textFrom(Napi::Value value, const char* what);
/** A bigint from 0 to 2^64 - 1. */
std::uint64_t unsigned64From(Napi::Value value, const char* what);
/** A copy of a Uint8Array. */
std::vector<std::byte> bytesFrom(Napi::Value value, const char* what);

/** Three arguments from `first` on: the number of an arena, an offset and a length. Throws what `ArenaTable::segment` does. */
rdma::Segment segmentFrom(const Napi::CallbackInfo& info, std::size_t first, const ArenaTable& arenas);
/** The object that `src/iser/rdma/addon.ts` calls AddonQueuePairOptions. */
rdma::QueuePairOptions optionsFrom(Napi::Value value, const ArenaTable& arenas);

Napi::Uint8Array bytesTo(Napi::Env env, std::span<const std::byte> bytes);

}  // namespace iserfs::addon
