/** Wakes the JavaScript thread up from any thread, and holds the event loop open or lets it end. One thread-safe function of N-API. */
#pragma once

#include <napi.h>

#include <functional>

namespace iserfs::addon {

class WakeUp {
 public:
  /** `onWake` runs on the JavaScript thread, within a callback scope of its own, for each `send`. Thread: JavaScript. */
  WakeUp(Napi::Env env, std::function<void(Napi::Env)> onWake);
  WakeUp(const WakeUp&) = delete;
  WakeUp& operator=(const WakeUp&) = delete;
  /** `release` must have been called. */
  ~WakeUp() = default;

  /** Any thread; not after `release`. */
  void send() noexcept;
  /** Whether the event loop goes on because of this. At first it does not. Thread: JavaScript. */
  void holdEventLoop(bool hold) noexcept;
  /** No `onWake` from now on. Thread: JavaScript. */
  void release() noexcept;

 private:
  static void call(napi_env env, napi_value callback, void* context, void* data) noexcept;

  const napi_env env_;
  const std::function<void(Napi::Env)> onWake_;
  napi_threadsafe_function function_ = nullptr;
};

}  // namespace iserfs::addon
