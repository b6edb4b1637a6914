/**
 * A fusermount3 that mounts nothing: the tests' own program, under that name in a folder of its own on PATH. It notes how it was
 * called, and does what a test has told it by an environment variable.
 */
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace iserfs::test {

enum class HelperConduct {
  sendsDescriptor,
  sendsTwoDescriptors,
  complains,
  complainsAndSends,
  complainsAtLength,
  complainsAtLengthAndSends,
  diesSilently,
  endsWithoutDescriptor,
  sendsByteAlone,
};

/** While it lives, fusermount3 is found on PATH and does so; or is not found. */
class FakeFusermount {
 public:
  explicit FakeFusermount(HelperConduct conduct, bool isThere = true);
  FakeFusermount(const FakeFusermount&) = delete;
  FakeFusermount& operator=(const FakeFusermount&) = delete;
  ~FakeFusermount();

  /** The file that the helper opens and sends, in place of /dev/fuse. */
  std::filesystem::path sentFile() const { return folder_ / "sent"; }
  /** Its arguments. */
  std::vector<std::string> words() const { return linesOf("words"); }
  std::vector<std::string> environment() const { return linesOf("environment"); }
  /** Whether it said and sent all that it had to, and was not ended before. */
  bool hasFinished() const { return std::filesystem::exists(folder_ / "finished"); }
  /** What its standard input was. */
  std::string standardInput() const;

  /** What it says where it complains. */
  static constexpr const char* complaint = "fusermount3: user has no write access to mountpoint /mnt";

 private:
  std::vector<std::string> linesOf(const char* name) const;

  std::filesystem::path folder_;
  std::string pathBefore_;
};

/** Whether this process was started as the helper. */
bool isFakeFusermount(const char* program);
/** Its life. */
[[noreturn]] void beFakeFusermount(char** words);

}  // namespace iserfs::test
