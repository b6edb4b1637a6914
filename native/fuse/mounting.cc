#include "fuse/mounting.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "fuse/kernel.h"

namespace iserfs::fuse {

namespace {

constexpr const char* device = "/dev/fuse";
constexpr const char* helper = "fusermount3";
/** Where the helper finds its end of the socket. */
constexpr int helperSocket = 3;

[[noreturn]] void fail(const std::string& what) { throw MountError(what + ": " + std::strerror(errno)); }

void makeNonBlocking(const Descriptor& descriptor) {
  const int flags = ::fcntl(descriptor.get(), F_GETFL);
  if (flags < 0 || ::fcntl(descriptor.get(), F_SETFL, flags | O_NONBLOCK) < 0) fail("fcntl");
}

std::string commonOptions(const MountOptions& options) {
  std::string text = "default_permissions,max_read=" + std::to_string(maxTransfer);
  if (options.allowOther) text += ",allow_other";
  return text;
}

Descriptor mountDirectly(const MountOptions& options) {
  Descriptor descriptor(::open(device, O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!descriptor.isOpen()) fail(device);
  struct stat status {};
  if (::stat(options.mountpoint.c_str(), &status) < 0) fail(options.mountpoint);
  char mode[16];
  std::snprintf(mode, sizeof mode, "%o", status.st_mode & S_IFMT);
  const auto data = "fd=" + std::to_string(descriptor.get()) + ",rootmode=" + mode + ",user_id=" + std::to_string(::getuid()) +
                    ",group_id=" + std::to_string(::getgid()) + "," + commonOptions(options);
  const auto type = "fuse." + options.subtype;
  unsigned long flags = MS_NOSUID | MS_NODEV;
  if (options.readOnly) flags |= MS_RDONLY;
  if (::mount(options.source.c_str(), options.mountpoint.c_str(), type.c_str(), flags, data.c_str()) < 0) fail("mount");
  return descriptor;
}

/** A comma would end the option. */
std::string escaped(const std::string& text) {
  std::string result;
  for (const char character : text) {
    if (character == '\\' || character == ',') result += '\\';
    result += character;
  }
  return result;
}

/** The environment of this process with what the helper wants to know, in English. */
std::vector<std::string> helperEnvironment() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; variable++) {
    const std::string text = *variable;
    if (!text.starts_with("_FUSE_COMMFD=") && !text.starts_with("LC_ALL=") && !text.starts_with("LANGUAGE=")) variables.push_back(text);
  }
  variables.push_back("LC_ALL=C");
  variables.push_back("_FUSE_COMMFD=" + std::to_string(helperSocket));
  return variables;
}

std::vector<char*> pointersTo(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (auto& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

class SpawnActions {
 public:
  SpawnActions() { ::posix_spawn_file_actions_init(&actions_); }
  SpawnActions(const SpawnActions&) = delete;
  SpawnActions& operator=(const SpawnActions&) = delete;
  ~SpawnActions() { ::posix_spawn_file_actions_destroy(&actions_); }
  void duplicate(int from, int to) { ::posix_spawn_file_actions_adddup2(&actions_, from, to); }
  void open(int to, const char* path) { ::posix_spawn_file_actions_addopen(&actions_, to, path, O_RDWR, 0); }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

/** Not one of the standard streams nor `helperSocket`, onto which descriptors of the child are put one after the other. */
Descriptor moved(Descriptor descriptor) {
  Descriptor high(::fcntl(descriptor.get(), F_DUPFD_CLOEXEC, helperSocket + 1));
  if (!high.isOpen()) fail("fcntl");
  return high;
}

std::string readAll(const Descriptor& from) {
  std::string text;
  char bytes[512];
  for (;;) {
    const auto length = ::read(from.get(), bytes, sizeof bytes);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) return text;
    if (text.size() < 4096) text.append(bytes, static_cast<std::size_t>(length));
  }
}

/**
 * The descriptor that a helper which has ended has sent; none where it sent none. Of several in its message the first; the others are
 * closed: the room for one is rounded up, and the kernel has opened what finds room.
 */
Descriptor receiveDescriptor(const Descriptor& socket) {
  char byte = 0;
  iovec into{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &into;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) <= 0) return {};
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return {};
  Descriptor first;
  const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (std::size_t index = 0; index < count; index++) {
    int number = -1;
    std::memcpy(&number, CMSG_DATA(header) + index * sizeof number, sizeof number);
    Descriptor each(number);
    if (!first.isOpen()) first = std::move(each);
  }
  return first;
}

Descriptor mountByHelper(const MountOptions& options) {
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0) fail("socketpair");
  const Descriptor ours(sockets[0]);
  Descriptor theirs = moved(Descriptor(sockets[1]));
  int pipes[2];
  if (::pipe2(pipes, O_CLOEXEC) < 0) fail("pipe");
  const Descriptor said(pipes[0]);
  Descriptor says = moved(Descriptor(pipes[1]));

  SpawnActions actions;
  actions.open(STDIN_FILENO, "/dev/null");
  actions.duplicate(says.get(), STDOUT_FILENO);
  actions.duplicate(says.get(), STDERR_FILENO);
  actions.duplicate(theirs.get(), helperSocket);
  std::vector<std::string> words{helper, "-o",
                                 "nosuid,nodev,fsname=" + escaped(options.source) + ",subtype=" + options.subtype + "," + commonOptions(options) +
                                     (options.readOnly ? ",ro" : ""),
                                 "--", options.mountpoint};
  auto variables = helperEnvironment();
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, helper, actions.get(), nullptr, pointersTo(words).data(), pointersTo(variables).data());
  if (error != 0) throw MountError(std::string(helper) + " cannot be started: " + std::strerror(error));
  theirs.reset();
  says.reset();
  // First what the helper says, until it ends: the pipe holds only so much of it, and the socket what it sends.
  auto complaint = readAll(said);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  auto descriptor = receiveDescriptor(ours);
  while (!complaint.empty() && complaint.back() == '\n') complaint.pop_back();
  if (!descriptor.isOpen()) throw MountError(complaint.empty() ? std::string(helper) + " does not mount" : complaint);
  makeNonBlocking(descriptor);
  return descriptor;
}

}  // namespace

Descriptor mount(const MountOptions& options) { return options.viaHelper ? mountByHelper(options) : mountDirectly(options); }

}  // namespace iserfs::fuse
