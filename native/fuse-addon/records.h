/** Requests as numbers in a Float64Array: `src/fuse/native-handlers.ts` reads what is written here. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "fuse/message.h"

namespace iserfs::fuse_addon {

/** Changes whenever the functions or records that JavaScript relies on do: `version` in native-addon.ts. */
constexpr std::uint32_t interfaceVersion = 3;

/** Numbers of a record. */
constexpr std::size_t recordFields = 12;
/** Records that are delivered by one call. */
constexpr std::size_t recordCapacity = 256;
/** Where the name of a record is in the text: so many bytes for each. */
constexpr std::size_t nameStride = 256;
/** An answer that JavaScript makes of bytes. */
constexpr std::size_t scratchLength = 128 * 1024;

static_assert(fuse::maxName <= nameStride);

inline void writeRecord(double* record, std::uint8_t* name, std::uint32_t token, const fuse::Message& message) {
  record[0] = token;
  record[1] = message.opcode;
  record[2] = static_cast<double>(message.inode);
  record[3] = static_cast<double>(message.handle);
  record[4] = static_cast<double>(message.offset);
  record[5] = static_cast<double>(message.length);
  record[6] = message.flags;
  record[7] = message.slot == fuse::noSlot ? -1 : static_cast<double>(message.slot);
  record[8] = message.mode;
  record[9] = message.uid;
  record[10] = message.gid;
  record[11] = static_cast<double>(message.name.size());
  if (!message.name.empty()) std::memcpy(name, message.name.data(), message.name.size());
}

}  // namespace iserfs::fuse_addon
