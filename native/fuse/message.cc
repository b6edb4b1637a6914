#include "fuse/message.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fuse/kernel.h"

namespace iserfs::fuse {

namespace {

/** What follows the header, in two pieces. */
class Body {
 public:
  Body(std::span<const std::byte> head, std::span<const std::byte> rest) : head_(head), rest_(rest) {}

  /** The structure that it begins with; false where it is shorter than that. */
  template <typename Fields>
  bool read(Fields& fields) const {
    return copy(reinterpret_cast<std::byte*>(&fields), sizeof fields) == sizeof fields;
  }

  /** As much of its start as there is. */
  std::size_t copy(std::byte* into, std::size_t most) const {
    const auto first = std::min(most, head_.size());
    if (first > 0) std::memcpy(into, head_.data(), first);
    const auto second = std::min(most - first, rest_.size());
    if (second > 0) std::memcpy(into + first, rest_.data(), second);
    return first + second;
  }

  std::size_t length() const { return head_.size() + rest_.size(); }

 private:
  std::span<const std::byte> head_;
  std::span<const std::byte> rest_;
};

struct Rule {
  Treatment treatment;
  int error = 0;
};

Rule ruleOf(std::uint32_t opcode) {
  switch (opcode) {
    case FUSE_INIT: return {Treatment::initialise};
    case FUSE_LOOKUP:
    case FUSE_GETATTR:
    case FUSE_SETATTR:
    case FUSE_OPEN:
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_STATFS:
    case FUSE_RELEASE:
    case FUSE_FSYNC:
    case FUSE_FLUSH:
    case FUSE_OPENDIR:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
    case FUSE_RELEASEDIR:
    case FUSE_IOCTL:
    case FUSE_FALLOCATE:
    case FUSE_LSEEK:
    case FUSE_INTERRUPT: return {Treatment::forward};
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_NOTIFY_REPLY: return {Treatment::ignore};
    case FUSE_DESTROY:
    case FUSE_FSYNCDIR: return {Treatment::answer, 0};
    // The names of a mount are given.
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_CREATE:
    case FUSE_TMPFILE:
    case FUSE_SYMLINK:
    case FUSE_LINK:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2: return {Treatment::answer, EPERM};
    case FUSE_READLINK: return {Treatment::answer, EINVAL};
    // The kernel does without, and does not ask again.
    default: return {Treatment::answer, ENOSYS};
  }
}

/** The name ends with a NUL. */
int readName(const Body& body, std::string& name) {
  std::byte bytes[maxName + 1];
  const auto length = body.copy(bytes, sizeof bytes);
  const auto* end = length == 0 ? nullptr : static_cast<const std::byte*>(std::memchr(bytes, 0, length));
  if (end == nullptr) return body.length() > maxName ? ENAMETOOLONG : EIO;
  name.assign(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(end - bytes));
  return 0;
}

template <typename Fields, typename Take>
int take(const Body& body, Take&& assign) {
  Fields fields;
  if (!body.read(fields)) return EIO;
  assign(fields);
  return 0;
}

/** Fills in what follows the header; the errno where that cannot be. */
int readBody(const Body& body, std::size_t restLength, Message& message) {
  const auto range = [&message](const auto& fields) {
    message.handle = fields.fh;
    message.offset = fields.offset;
    message.length = fields.size;
  };
  const auto handle = [&message](const auto& fields) { message.handle = fields.fh; };
  switch (message.opcode) {
    case FUSE_LOOKUP: return readName(body, message.name);
    case FUSE_SETATTR:
      return take<fuse_setattr_in>(body, [&](const fuse_setattr_in& fields) {
        message.flags = fields.valid;
        message.offset = fields.size;
        message.mode = fields.mode;
        message.uid = fields.uid;
        message.gid = fields.gid;
      });
    case FUSE_OPEN:
    case FUSE_OPENDIR: return take<fuse_open_in>(body, [&](const fuse_open_in& fields) { message.flags = fields.flags; });
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: return take<fuse_read_in>(body, range);
    case FUSE_WRITE: {
      const int error = take<fuse_write_in>(body, range);
      return error == 0 && message.length != restLength ? EIO : error;
    }
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: return take<fuse_release_in>(body, handle);
    case FUSE_FSYNC: return take<fuse_fsync_in>(body, handle);
    case FUSE_FLUSH: return take<fuse_flush_in>(body, handle);
    case FUSE_IOCTL:
      return take<fuse_ioctl_in>(body, [&](const fuse_ioctl_in& fields) {
        message.handle = fields.fh;
        message.flags = fields.cmd;
        message.length = fields.out_size;
      });
    case FUSE_FALLOCATE:
      return take<fuse_fallocate_in>(body, [&](const fuse_fallocate_in& fields) {
        message.handle = fields.fh;
        message.offset = fields.offset;
        message.length = fields.length;
        message.flags = fields.mode;
      });
    case FUSE_LSEEK:
      return take<fuse_lseek_in>(body, [&](const fuse_lseek_in& fields) {
        message.handle = fields.fh;
        message.offset = fields.offset;
        message.flags = fields.whence;
      });
    case FUSE_INTERRUPT: return take<fuse_interrupt_in>(body, [&](const fuse_interrupt_in& fields) { message.offset = fields.unique; });
    default: return 0;
  }
}

}  // namespace

std::optional<Parsed> parse(std::span<const std::byte> head, std::span<const std::byte> rest) {
  fuse_in_header header;
  if (head.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, head.data(), sizeof header);
  const auto [treatment, error] = ruleOf(header.opcode);
  Parsed parsed{.treatment = treatment, .error = error, .message = {}};
  parsed.message.opcode = header.opcode;
  parsed.message.unique = header.unique;
  parsed.message.inode = header.nodeid;
  if (treatment != Treatment::forward) return parsed;
  const bool isWhole = header.len == head.size() + rest.size();
  parsed.error = isWhole ? readBody({head.subspan(sizeof header), rest}, rest.size(), parsed.message) : EIO;
  if (parsed.error != 0) parsed.treatment = header.opcode == FUSE_INTERRUPT ? Treatment::ignore : Treatment::answer;
  return parsed;
}

}  // namespace iserfs::fuse
