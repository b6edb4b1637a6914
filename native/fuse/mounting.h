/**
 * Makes a mount and a descriptor of /dev/fuse that serves it: by mount(2) as root, by fusermount3 otherwise, without a shell. Blocks
 * for as long as either takes: not for the JavaScript thread.
 */
#pragma once

#include <stdexcept>
#include <string>

#include "fuse/descriptor.h"

namespace iserfs::fuse {

struct MountOptions {
  /** Absolute. */
  std::string mountpoint;
  /** First column of /proc/mounts. */
  std::string source;
  /** The type in /proc/mounts is `fuse.` and this. */
  std::string subtype;
  bool allowOther = false;
  bool readOnly = false;
  bool viaHelper = false;
};

/** Its message is for people. */
class MountError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/** The descriptor does not block, and children do not inherit it. Throws MountError. */
Descriptor mount(const MountOptions& options);

}  // namespace iserfs::fuse
