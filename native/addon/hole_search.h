/** Where a file has data and where it has holes. */
#pragma once

#include <napi.h>

namespace iserfs::addon {

/**
 * `seek(descriptor, offset, isHole)`: a promise of the first offset from `offset` on that is in a hole, which the end of the file
 * counts as, or in data; -ENXIO where there is none, -EINVAL where the file system does not tell. The descriptor is copied: it may be
 * closed meanwhile. Its position moves. Thread: js.
 */
Napi::Value seek(const Napi::CallbackInfo& info);

}  // namespace iserfs::addon
