#include "fuse/notifier.h"

#include <chrono>
#include <utility>

namespace iserfs::fuse {

namespace {

void send(Channel& channel, const Notice& notice) {
  if (notice.name.empty()) {
    fuse_notify_inval_inode_out fields{.ino = notice.inode, .off = notice.offset, .len = notice.length};
    const iovec body{.iov_base = &fields, .iov_len = sizeof fields};
    channel.notify(FUSE_NOTIFY_INVAL_INODE, {&body, 1});
    return;
  }
  fuse_notify_inval_entry_out fields{.parent = notice.inode, .namelen = static_cast<std::uint32_t>(notice.name.size()), .flags = 0};
  const iovec body[] = {{.iov_base = &fields, .iov_len = sizeof fields},
                        {.iov_base = const_cast<char*>(notice.name.c_str()), .iov_len = notice.name.size() + 1}};
  channel.notify(FUSE_NOTIFY_INVAL_ENTRY, body);
}

}  // namespace

Notifier::Notifier(std::shared_ptr<Channel> channel, std::function<void()> wake) : state_(std::make_shared<State>()) {
  state_->channel = std::move(channel);
  state_->wake = std::move(wake);
}

Notifier::~Notifier() {
  if (!thread_.joinable()) return;
  std::unique_lock lock(state_->mutex);
  state_->stopped = true;
  state_->changed.notify_all();
  const bool hasEnded = state_->changed.wait_for(lock, std::chrono::seconds(1), [this] { return state_->hasEnded; });
  lock.unlock();
  if (hasEnded) thread_.join();
  else thread_.detach();
}

void Notifier::tell(Notice notice) {
  if (!thread_.joinable()) thread_ = std::thread([state = state_] { run(state); });
  const std::lock_guard lock(state_->mutex);
  state_->waiting.push_back(std::move(notice));
  state_->changed.notify_all();
}

std::vector<std::uint32_t> Notifier::takeDone() {
  const std::lock_guard lock(state_->mutex);
  return std::exchange(state_->done, {});
}

void Notifier::run(const std::shared_ptr<State>& state) {
  std::unique_lock lock(state->mutex);
  for (;;) {
    state->changed.wait(lock, [&state] { return state->stopped || !state->waiting.empty(); });
    const auto notices = std::exchange(state->waiting, {});
    for (const auto& notice : notices) {
      if (state->stopped) break;
      lock.unlock();
      send(*state->channel, notice);
      lock.lock();
      if (notice.id == 0 || state->stopped) continue;
      state->done.push_back(notice.id);
      state->wake();
    }
    if (state->stopped) break;
  }
  state->hasEnded = true;
  state->changed.notify_all();
}

}  // namespace iserfs::fuse
