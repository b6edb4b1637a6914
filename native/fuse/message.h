/**
 * What the kernel asks, taken apart: one message in, its fields out. Trusts no length. Knows which requests concern JavaScript and
 * what the others are answered; answers nothing itself.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace iserfs::fuse {

/** The payload is in no slot. */
constexpr std::uint32_t noSlot = UINT32_MAX;
/** Longest name that is looked at; the kernel has no longer ones in directories. */
constexpr std::size_t maxName = 255;

/** A request that is for JavaScript. What a field means depends on the opcode, and is 0 where it has no meaning. */
struct Message {
  std::uint32_t opcode = 0;
  std::uint64_t unique = 0;
  std::uint64_t inode = 0;
  std::uint64_t handle = 0;
  /** Bytes from the start. Of SETATTR the new size, of INTERRUPT the `unique` of the request that it is for. */
  std::uint64_t offset = 0;
  /** Bytes. Of IOCTL the most that is taken as its answer. */
  std::uint64_t length = 0;
  /** OPEN: as of open(2); SETATTR: which fields are meant; FALLOCATE: the mode; LSEEK: whence; IOCTL: the command. */
  std::uint32_t flags = 0;
  /** Of SETATTR. */
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  /** Of WRITE: where its data is. */
  std::uint32_t slot = noSlot;
  /** Of LOOKUP. */
  std::string name;
};

/** What is done with a request. */
enum class Treatment : std::uint8_t {
  /** The first of all: the terms of the connection. */
  initialise,
  /** JavaScript answers. */
  forward,
  /** Answered with `errno`. */
  answer,
  /** The kernel wants no answer. */
  ignore,
};

struct Parsed {
  Treatment treatment = Treatment::ignore;
  /** 0 or a positive errno. */
  int error = 0;
  Message message;
};

/**
 * Takes a message apart. `head` is its start, and complete if shorter than 80 bytes (`headLength`); `rest` is what came behind these.
 * A message that contradicts itself is answered EIO; nothing for one without a whole header, which cannot be answered.
 */
std::optional<Parsed> parse(std::span<const std::byte> head, std::span<const std::byte> rest);

}  // namespace iserfs::fuse
