/** What the kernel's messages are taken for; the fields as linux/fuse.h has them. */
#include "fuse/message.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <string>

#include "fuse_kernel.h"

namespace iserfs::test {

using namespace iserfs::fuse;

namespace {

constexpr std::uint64_t someUnique = 0xfedcba9876543210;
constexpr std::uint64_t someInode = 0x8000000000000007;
constexpr std::uint64_t someHandle = 0xfffffffffffffffe;

/** As the channel has it: the first 80 bytes apart. */
std::optional<Parsed> parseWhole(const Bytes& bytes) {
  const auto whole = std::span<const std::byte>(bytes);
  const auto split = std::min(whole.size(), headLength);
  return parse(whole.first(split), whole.subspan(split));
}

Bytes message(std::uint32_t opcode, const Bytes& body = {}) { return kernelMessage(opcode, someUnique, someInode, body); }

/** Forwarded, and nothing in it but what every request has. */
Message forwarded(const Bytes& bytes) {
  const auto parsed = parseWhole(bytes);
  REQUIRE(parsed.has_value());
  CHECK(parsed->treatment == Treatment::forward);
  CHECK(parsed->error == 0);
  CHECK(parsed->message.unique == someUnique);
  CHECK(parsed->message.inode == someInode);
  CHECK(parsed->message.slot == noSlot);
  return parsed->message;
}

void checkFields(const Message& found, const Message& expected) {
  CHECK(found.handle == expected.handle);
  CHECK(found.offset == expected.offset);
  CHECK(found.length == expected.length);
  CHECK(found.flags == expected.flags);
  CHECK(found.mode == expected.mode);
  CHECK(found.uid == expected.uid);
  CHECK(found.gid == expected.gid);
  CHECK(found.name == expected.name);
}

void checkAnswered(const Bytes& bytes, int error) {
  const auto parsed = parseWhole(bytes);
  REQUIRE(parsed.has_value());
  CHECK(parsed->treatment == Treatment::answer);
  CHECK(parsed->error == error);
  CHECK(parsed->message.unique == someUnique);
}

/** Requests that are forwarded, each with the structure that it must have. */
struct Form {
  std::uint32_t opcode;
  std::size_t bodyLength;
};

const Form forms[] = {
    {FUSE_SETATTR, sizeof(fuse_setattr_in)},   {FUSE_OPEN, sizeof(fuse_open_in)},         {FUSE_OPENDIR, sizeof(fuse_open_in)},
    {FUSE_READ, sizeof(fuse_read_in)},         {FUSE_READDIR, sizeof(fuse_read_in)},      {FUSE_READDIRPLUS, sizeof(fuse_read_in)},
    {FUSE_WRITE, sizeof(fuse_write_in)},       {FUSE_RELEASE, sizeof(fuse_release_in)},   {FUSE_RELEASEDIR, sizeof(fuse_release_in)},
    {FUSE_FSYNC, sizeof(fuse_fsync_in)},       {FUSE_FLUSH, sizeof(fuse_flush_in)},       {FUSE_IOCTL, sizeof(fuse_ioctl_in)},
    {FUSE_FALLOCATE, sizeof(fuse_fallocate_in)}, {FUSE_LSEEK, sizeof(fuse_lseek_in)},
};

}  // namespace

TEST_SUITE_BEGIN("fuse message");

TEST_CASE("a message without a whole header cannot be answered") {
  const auto whole = message(FUSE_GETATTR);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CHECK_FALSE(parseWhole({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)}).has_value());
  }
  CHECK(parseWhole(whole).has_value());
}

TEST_CASE("a name is what comes before the first NUL") {
  CHECK(forwarded(message(FUSE_LOOKUP, textBytes({"disk.img\0", 9}))).name == "disk.img");
  CHECK(forwarded(message(FUSE_LOOKUP, textBytes({"a\0behind\0", 9}))).name == "a");
  CHECK(forwarded(message(FUSE_LOOKUP, textBytes({"\0", 1}))).name.empty());
  CHECK(forwarded(message(FUSE_LOOKUP, textBytes({"\xff\x01/\0", 4}))).name == "\xff\x01/");
}

TEST_CASE("a name that begins in the head and ends behind it comes whole") {
  for (std::size_t length = 1; length <= maxName; ++length) {
    std::string name;
    for (std::size_t i = 0; i < length; ++i) name += static_cast<char>('a' + i % 26);
    CHECK(forwarded(message(FUSE_LOOKUP, textBytes({name.c_str(), length + 1}))).name == name);
  }
}

TEST_CASE("a name that is too long, or that does not end, is answered so") {
  checkAnswered(message(FUSE_LOOKUP, textBytes({std::string(maxName + 1, 'n').c_str(), maxName + 2})), ENAMETOOLONG);
  checkAnswered(message(FUSE_LOOKUP, textBytes(std::string(maxName + 1, 'n'))), ENAMETOOLONG);
  checkAnswered(message(FUSE_LOOKUP, textBytes(std::string(100'000, 'n'))), ENAMETOOLONG);
  checkAnswered(message(FUSE_LOOKUP, textBytes(std::string(maxName, 'n'))), EIO);
  checkAnswered(message(FUSE_LOOKUP, textBytes("unended")), EIO);
  checkAnswered(message(FUSE_LOOKUP), EIO);
}

TEST_CASE("requests about attributes and about the file system need nothing but their header") {
  fuse_getattr_in fields{};
  fields.getattr_flags = FUSE_GETATTR_FH;
  fields.fh = someHandle;
  checkFields(forwarded(message(FUSE_GETATTR, bytesOfFields(fields))), {});
  checkFields(forwarded(message(FUSE_GETATTR)), {});
  checkFields(forwarded(message(FUSE_STATFS)), {});
}

TEST_CASE("new attributes come with what of them is meant") {
  fuse_setattr_in fields{};
  fields.valid = FATTR_SIZE | FATTR_MODE | FATTR_UID | FATTR_GID;
  fields.fh = someHandle;
  fields.size = UINT64_MAX;
  fields.mode = 0100644;
  fields.uid = UINT32_MAX;
  fields.gid = 17;
  checkFields(forwarded(message(FUSE_SETATTR, bytesOfFields(fields))),
              {.offset = UINT64_MAX, .flags = fields.valid, .mode = 0100644, .uid = UINT32_MAX, .gid = 17, .name = {}});
}

TEST_CASE("files and directories are opened with flags") {
  for (const std::uint32_t opcode : {FUSE_OPEN, FUSE_OPENDIR}) {
    fuse_open_in fields{};
    fields.flags = 0xffffffff;
    fields.open_flags = FUSE_OPEN_KILL_SUIDGID;
    checkFields(forwarded(message(opcode, bytesOfFields(fields))), {.flags = 0xffffffff, .name = {}});
  }
}

TEST_CASE("what is read has a handle and a range, up to the limits of both") {
  for (const std::uint32_t opcode : {FUSE_READ, FUSE_READDIR, FUSE_READDIRPLUS}) {
    fuse_read_in fields{};
    fields.fh = someHandle;
    fields.offset = UINT64_MAX;
    fields.size = UINT32_MAX;
    fields.flags = 7;
    checkFields(forwarded(message(opcode, bytesOfFields(fields))),
                {.handle = someHandle, .offset = UINT64_MAX, .length = UINT32_MAX, .name = {}});
  }
}

TEST_CASE("a write has as much data as it says, all of it behind the head") {
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{4096}, maxTransfer}) {
    fuse_write_in fields{};
    fields.fh = someHandle;
    fields.offset = 0x123456789abc;
    fields.size = static_cast<std::uint32_t>(length);
    const auto withData = [&fields](std::size_t count) {
      auto body = bytesOfFields(fields);
      body.insert(body.end(), count, std::byte{0x5a});
      return message(FUSE_WRITE, body);
    };
    checkFields(forwarded(withData(length)), {.handle = someHandle, .offset = 0x123456789abc, .length = length, .name = {}});
    checkAnswered(withData(length + 1), EIO);
    if (length > 0) checkAnswered(withData(length - 1), EIO);
  }
}

TEST_CASE("handles are let go of, flushed and synchronised") {
  fuse_release_in release{};
  release.fh = someHandle;
  release.flags = 2;
  for (const std::uint32_t opcode : {FUSE_RELEASE, FUSE_RELEASEDIR}) {
    checkFields(forwarded(message(opcode, bytesOfFields(release))), {.handle = someHandle, .name = {}});
  }
  fuse_fsync_in fsync{};
  fsync.fh = someHandle;
  fsync.fsync_flags = FUSE_FSYNC_FDATASYNC;
  checkFields(forwarded(message(FUSE_FSYNC, bytesOfFields(fsync))), {.handle = someHandle, .name = {}});
  fuse_flush_in flush{};
  flush.fh = someHandle;
  flush.lock_owner = 3;
  checkFields(forwarded(message(FUSE_FLUSH, bytesOfFields(flush))), {.handle = someHandle, .name = {}});
}

TEST_CASE("a control has its command and the room for its answer") {
  fuse_ioctl_in fields{};
  fields.fh = someHandle;
  fields.flags = FUSE_IOCTL_UNRESTRICTED;
  fields.cmd = 0x80081272;
  fields.arg = 0x7ffe12345678;
  fields.in_size = 4;
  fields.out_size = UINT32_MAX;
  auto body = bytesOfFields(fields);
  body.resize(body.size() + 4);
  checkFields(forwarded(message(FUSE_IOCTL, body)), {.handle = someHandle, .length = UINT32_MAX, .flags = 0x80081272, .name = {}});
}

TEST_CASE("space is allocated and holes are looked for in ranges of 64 bits") {
  fuse_fallocate_in fallocate{};
  fallocate.fh = someHandle;
  fallocate.offset = UINT64_MAX - 1;
  fallocate.length = UINT64_MAX;
  fallocate.mode = 3;
  checkFields(forwarded(message(FUSE_FALLOCATE, bytesOfFields(fallocate))),
              {.handle = someHandle, .offset = UINT64_MAX - 1, .length = UINT64_MAX, .flags = 3, .name = {}});
  fuse_lseek_in lseek{};
  lseek.fh = someHandle;
  lseek.offset = INT64_MAX;
  lseek.whence = 4;
  checkFields(forwarded(message(FUSE_LSEEK, bytesOfFields(lseek))), {.handle = someHandle, .offset = INT64_MAX, .flags = 4, .name = {}});
}

TEST_CASE("an interrupt says for which request it is; one that does not is ignored") {
  fuse_interrupt_in fields{};
  fields.unique = 0x1122334455667788;
  const auto whole = message(FUSE_INTERRUPT, bytesOfFields(fields));
  checkFields(forwarded(whole), {.offset = 0x1122334455667788, .name = {}});
  CHECK(parseWhole(message(FUSE_INTERRUPT))->treatment == Treatment::ignore);
  auto lying = whole;
  lying.push_back(std::byte{0});
  CHECK(parseWhole(lying)->treatment == Treatment::ignore);
}

TEST_CASE("a request that is shorter than its structure is answered") {
  for (const auto& [opcode, bodyLength] : forms) {
    CAPTURE(opcode);
    for (std::size_t length = 0; length < bodyLength; ++length) checkAnswered(message(opcode, Bytes(length)), EIO);
    CHECK(parseWhole(message(opcode, Bytes(bodyLength)))->treatment == Treatment::forward);
  }
}

TEST_CASE("newer kernels may add to a structure, but not to the data of a write") {
  for (const auto& [opcode, bodyLength] : forms) {
    CAPTURE(opcode);
    const auto parsed = parseWhole(message(opcode, Bytes(bodyLength + 8)));
    CHECK(parsed->treatment == (opcode == FUSE_WRITE ? Treatment::answer : Treatment::forward));
  }
}

TEST_CASE("a message that is longer or shorter than its header says is answered") {
  for (const auto& [opcode, bodyLength] : forms) {
    CAPTURE(opcode);
    const auto whole = message(opcode, Bytes(bodyLength));
    for (const std::uint32_t said : {std::uint32_t{0}, std::uint32_t{40}, static_cast<std::uint32_t>(whole.size() - 1),
                                     static_cast<std::uint32_t>(whole.size() + 1), UINT32_MAX}) {
      if (said == whole.size()) continue;
      auto lying = whole;
      std::memcpy(lying.data(), &said, sizeof said);
      checkAnswered(lying, EIO);
    }
  }
}

TEST_CASE("the terms of a connection come first") {
  const auto parsed = parseWhole(initMessage(someUnique, {}));
  REQUIRE(parsed.has_value());
  CHECK(parsed->treatment == Treatment::initialise);
  CHECK(parsed->message.unique == someUnique);
  // Of any length: protocols differ in it.
  CHECK(parseWhole(message(FUSE_INIT))->treatment == Treatment::initialise);
}

TEST_CASE("what the kernel wants no answer to gets none, whatever it looks like") {
  fuse_forget_in one{};
  one.nlookup = UINT64_MAX;
  CHECK(parseWhole(message(FUSE_FORGET, bytesOfFields(one)))->treatment == Treatment::ignore);
  fuse_batch_forget_in many{};
  many.count = UINT32_MAX;
  CHECK(parseWhole(message(FUSE_BATCH_FORGET, bytesOfFields(many)))->treatment == Treatment::ignore);
  for (const std::uint32_t opcode : {FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_NOTIFY_REPLY}) {
    auto lying = message(opcode);
    lying.push_back(std::byte{1});
    CHECK(parseWhole(lying)->treatment == Treatment::ignore);
  }
}

TEST_CASE("what never changes is refused, and what needs nothing is done") {
  for (const std::uint32_t opcode : {FUSE_DESTROY, FUSE_FSYNCDIR}) checkAnswered(message(opcode), 0);
  for (const std::uint32_t opcode : {FUSE_MKNOD, FUSE_MKDIR, FUSE_CREATE, FUSE_TMPFILE, FUSE_SYMLINK, FUSE_LINK, FUSE_UNLINK, FUSE_RMDIR,
                                     FUSE_RENAME, FUSE_RENAME2}) {
    checkAnswered(message(opcode, textBytes({"name\0", 5})), EPERM);
  }
  checkAnswered(message(FUSE_READLINK), EINVAL);
}

TEST_CASE("what is not known is not implemented") {
  for (const std::uint32_t opcode : {FUSE_ACCESS, FUSE_SETXATTR, FUSE_GETXATTR, FUSE_LISTXATTR, FUSE_REMOVEXATTR, FUSE_GETLK, FUSE_SETLK,
                                     FUSE_BMAP, FUSE_POLL, FUSE_COPY_FILE_RANGE, FUSE_SYNCFS}) {
    checkAnswered(message(opcode), ENOSYS);
  }
  for (const std::uint32_t opcode : {std::uint32_t{0}, std::uint32_t{7}, std::uint32_t{52}, std::uint32_t{53}, std::uint32_t{4096}, UINT32_MAX}) {
    checkAnswered(message(opcode), ENOSYS);
  }
}

TEST_SUITE_END();

}  // namespace iserfs::test
