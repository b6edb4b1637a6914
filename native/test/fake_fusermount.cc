#include "fake_fusermount.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string_view>

namespace iserfs::test {

namespace {

constexpr const char* helperName = "fusermount3";
constexpr const char* conductVariable = "FAKE_FUSERMOUNT_CONDUCT";
constexpr const char* folderVariable = "FAKE_FUSERMOUNT_FOLDER";
/** More than is kept of it, and more than a pipe holds. */
constexpr std::size_t atLength = 200'000;
/** A helper whom nobody listens to ends: so its test fails, and does not hang. */
constexpr unsigned int lifeSeconds = 10;

void note(const std::filesystem::path& file, char** texts) {
  std::ofstream out(file);
  for (; *texts != nullptr; texts++) out << *texts << '\n';
}

void say(std::string_view text, int to) { static_cast<void>(!::write(to, text.data(), text.size())); }

/** As libfuse's does it: one byte, with the descriptor beside it; or none, or two of the same file. */
void send(int socket, int descriptor, std::size_t count = 1) {
  char byte = 0;
  iovec from{.iov_base = &byte, .iov_len = 1};
  const std::array<int, 2> sent{descriptor, descriptor};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof sent)> control{};
  msghdr message{};
  message.msg_iov = &from;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(header), sent.data(), count * sizeof(int));
  }
  ::sendmsg(socket, &message, 0);
}

}  // namespace

FakeFusermount::FakeFusermount(HelperConduct conduct, bool isThere) {
  std::string folder = (std::filesystem::temp_directory_path() / "iserfs-fusermount-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) throw std::filesystem::filesystem_error("mkdtemp", std::error_code(errno, std::generic_category()));
  folder_ = folder;
  if (isThere) std::filesystem::create_symlink(std::filesystem::read_symlink("/proc/self/exe"), folder_ / helperName);
  std::ofstream(sentFile()) << "in place of /dev/fuse";
  const char* path = std::getenv("PATH");
  pathBefore_ = path == nullptr ? "" : path;
  ::setenv("PATH", folder_.c_str(), 1);
  ::setenv(folderVariable, folder_.c_str(), 1);
  ::setenv(conductVariable, std::to_string(static_cast<int>(conduct)).c_str(), 1);
}

FakeFusermount::~FakeFusermount() {
  ::setenv("PATH", pathBefore_.c_str(), 1);
  ::unsetenv(folderVariable);
  ::unsetenv(conductVariable);
  std::filesystem::remove_all(folder_);
}

std::string FakeFusermount::standardInput() const {
  const auto lines = linesOf("input");
  return lines.empty() ? "" : lines[0];
}

std::vector<std::string> FakeFusermount::linesOf(const char* name) const {
  std::vector<std::string> lines;
  std::ifstream in(folder_ / name);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

bool isFakeFusermount(const char* program) { return std::string_view(program) == helperName && std::getenv(conductVariable) != nullptr; }

void beFakeFusermount(char** words) {
  const std::filesystem::path folder = std::getenv(folderVariable);
  note(folder / "words", words + 1);
  note(folder / "environment", environ);
  std::ofstream(folder / "input") << std::filesystem::read_symlink("/proc/self/fd/0").string() << '\n';
  const char* number = std::getenv("_FUSE_COMMFD");
  const int socket = number == nullptr ? -1 : std::atoi(number);
  const int sent = ::open((folder / "sent").c_str(), O_RDWR);
  int status = 0;
  ::alarm(lifeSeconds);
  switch (static_cast<HelperConduct>(std::atoi(std::getenv(conductVariable)))) {
    case HelperConduct::sendsDescriptor:
      send(socket, sent);
      break;
    case HelperConduct::sendsTwoDescriptors:
      send(socket, sent, 2);
      break;
    case HelperConduct::complains:
      say(std::string(FakeFusermount::complaint) + "\n", STDERR_FILENO);
      status = 1;
      break;
    case HelperConduct::complainsAndSends:
      say("fusermount3: a warning\n", STDOUT_FILENO);
      send(socket, sent);
      break;
    case HelperConduct::complainsAtLength:
      say(std::string(atLength, 'x'), STDERR_FILENO);
      status = 1;
      break;
    case HelperConduct::complainsAtLengthAndSends:
      say(std::string(atLength, 'x'), STDERR_FILENO);
      send(socket, sent);
      break;
    case HelperConduct::diesSilently:
      ::raise(SIGKILL);
      break;
    case HelperConduct::endsWithoutDescriptor:
      break;
    case HelperConduct::sendsByteAlone:
      send(socket, sent, 0);
      break;
  }
  std::ofstream(folder / "finished");
  ::_exit(status);
}

}  // namespace iserfs::test
