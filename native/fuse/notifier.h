/**
 * A thread that tells the kernel what it is to forget. The kernel may wait then for answers to what it has asked: so this is no
 * business of a thread that answers. Begins when there is something to tell.
 */
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fuse/channel.h"

namespace iserfs::fuse {

/** What is to be forgotten: a range of a file's pages and its attributes, or a name. */
struct Notice {
  /** Not 0 where somebody wants to know when it is done. */
  std::uint32_t id = 0;
  /** Of the file, or of the directory that the name stands in. */
  std::uint64_t inode = 0;
  /** -1 for the attributes alone. */
  std::int64_t offset = -1;
  /** 0 means to the end. */
  std::int64_t length = 0;
  std::string name;
};

class Notifier {
 public:
  /** `wake` is called on the notifier's thread when a notice with an id is done. */
  Notifier(std::shared_ptr<Channel> channel, std::function<void()> wake);
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;
  /** Drops what is left to tell and waits for what is being told: no longer than a second, then the thread ends by itself. */
  ~Notifier();

  /** Throws std::system_error where no thread can be made. Thread: JavaScript. */
  void tell(Notice notice);
  /** The ids that are done since the last time. Any thread. */
  std::vector<std::uint32_t> takeDone();

 private:
  struct State {
    std::shared_ptr<Channel> channel;
    std::mutex mutex;
    std::condition_variable changed;
    std::function<void()> wake;
    std::vector<Notice> waiting;
    std::vector<std::uint32_t> done;
    bool stopped = false;
    bool hasEnded = false;
  };

  /** Thread: the notifier's, which keeps the state. */
  static void run(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace iserfs::fuse
