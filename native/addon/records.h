/** Events as words of a Uint32Array: `src/iser/rdma/event-records.ts` reads what is written here. */
#pragma once

#include <cstddef>
#include <cstdint>

#include "addon/event_queue.h"

namespace iserfs::addon {

/** Changes whenever the functions or records that JavaScript relies on do: `version` in addon.ts. */
constexpr std::uint32_t interfaceVersion = 6;

/** Words of a record: owner, what, number of the work request or of the notice, length, invalidated tag. */
constexpr std::size_t recordWords = 5;
/** Records that are delivered by one call. */
constexpr std::size_t recordCapacity = 256;

/** The second word: kind, opcode and status in a byte each, and whether there is an invalidated tag. */
inline std::uint32_t whatWord(EventKind kind, const rdma::Completion& completion) {
  return static_cast<std::uint32_t>(kind) | static_cast<std::uint32_t>(completion.opcode) << 8 |
         static_cast<std::uint32_t>(completion.status) << 16 | (completion.hasInvalidated ? 1U << 24 : 0U);
}

inline void writeRecord(std::uint32_t* record, const Event& event, std::uint32_t id) {
  record[0] = event.owner;
  record[1] = whatWord(event.kind, event.completion);
  record[2] = id;
  record[3] = event.completion.byteLength;
  record[4] = event.completion.invalidatedTag;
}

}  // namespace iserfs::addon
