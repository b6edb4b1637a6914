/**
 * A descriptor in the environment's event loop, and a way for other threads to wake it. What knows libuv. It holds the loop open until
 * `close`, also while nothing is polled: what another thread has left may be all that there is to do.
 */
#pragma once

#include <uv.h>

#include <functional>

namespace iserfs::fuse_addon {

/** Thread: JavaScript, but for `wake`. */
class LoopHandles {
 public:
  /** Both are called on the JavaScript thread, outside of any JavaScript. Throws std::runtime_error. Owned by the loop until `close`. */
  static LoopHandles* open(uv_loop_t* loop, int descriptor, std::function<void()> onReadable, std::function<void()> onWake);
  LoopHandles(const LoopHandles&) = delete;
  LoopHandles& operator=(const LoopHandles&) = delete;

  /** Any thread; several at once may lead to one call of `onWake`. Not after `close`. */
  void wake() noexcept { uv_async_send(&async_); }
  /** Whether `onReadable` is called, also when the descriptor has come to its end. */
  void poll(bool on) noexcept;
  /** Neither is called any more, and `closed` is when the loop has let go of both. Not to be used any more. */
  void close(std::function<void()> closed) noexcept;

 private:
  LoopHandles() = default;
  ~LoopHandles() = default;
  void closeHandle(uv_handle_t* handle) noexcept;

  uv_poll_t poll_{};
  uv_async_t async_{};
  int open_ = 0;
  std::function<void()> onReadable_;
  std::function<void()> onWake_;
  std::function<void()> closed_;
};

}  // namespace iserfs::fuse_addon
