/**
 * The kernel's side of the protocol: its header, with what newer kernels offer than the header that may be installed. Messages are in
 * the machine's byte order.
 */
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

namespace iserfs::fuse {

/** In `flags2` of INIT, where bit 32 of the flags is bit 0. */
constexpr std::uint32_t directIoAllowMmap = 1U << 4;

/** A header and what comes before the data of a WRITE: as much as is read apart from the data, so that the data is page aligned. */
constexpr std::size_t headLength = sizeof(fuse_in_header) + sizeof(fuse_write_in);
static_assert(headLength == 80);

/** Most data of one request, either way. */
constexpr std::size_t maxTransfer = 1024 * 1024;
constexpr std::size_t pageLength = 4096;

}  // namespace iserfs::fuse
