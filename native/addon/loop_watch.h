/** A descriptor that an environment's event loop watches. What knows libuv; it does not hold the loop open. */
#pragma once

#include <napi.h>
#include <uv.h>

#include <functional>
#include <memory>

namespace iserfs::addon {

/** Thread: JavaScript, throughout. */
class LoopWatch : public std::enable_shared_from_this<LoopWatch> {
 public:
  /**
   * `onReadable` is called, outside of any JavaScript, whenever `descriptor` is readable, until `close` or the environment's end. The
   * descriptor stays open until `close`. Throws Napi::Error.
   */
  static std::shared_ptr<LoopWatch> start(napi_env env, int descriptor, std::function<void()> onReadable);
  LoopWatch(const LoopWatch&) = delete;
  LoopWatch& operator=(const LoopWatch&) = delete;
  ~LoopWatch() = default;

  /** Idempotent. */
  void close() noexcept;

 private:
  explicit LoopWatch(std::function<void()> onReadable) : onReadable_(std::move(onReadable)) {}

  uv_poll_t poll_{};
  bool isClosed_ = false;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  /** From `start` to the end of closing: the event loop refers to this. */
  std::shared_ptr<LoopWatch> self_;
  std::function<void()> onReadable_;
};

}  // namespace iserfs::addon
