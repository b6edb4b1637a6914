#include "addon/loop_watch.h"

#include <utility>

namespace iserfs::addon {

std::shared_ptr<LoopWatch> LoopWatch::start(napi_env env, int descriptor, std::function<void()> onReadable) {
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) throw Napi::Error::New(env, "there is no event loop");
  const std::shared_ptr<LoopWatch> watch(new LoopWatch(std::move(onReadable)));
  if (const int error = uv_poll_init(loop, &watch->poll_, descriptor); error != 0) throw Napi::Error::New(env, uv_strerror(error));
  watch->poll_.data = watch.get();
  watch->self_ = watch;
  uv_unref(reinterpret_cast<uv_handle_t*>(&watch->poll_));
  const auto endOfEnvironment = [](napi_async_cleanup_hook_handle, void* data) { static_cast<LoopWatch*>(data)->close(); };
  if (napi_add_async_cleanup_hook(env, endOfEnvironment, watch.get(), &watch->cleanup_) != napi_ok) {
    watch->close();
    throw Napi::Error::New(env, "the environment is ending");
  }
  uv_poll_start(&watch->poll_, UV_READABLE, [](uv_poll_t* handle, int, int) { static_cast<LoopWatch*>(handle->data)->onReadable_(); });
  return watch;
}

void LoopWatch::close() noexcept {
  if (std::exchange(isClosed_, true)) return;
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
    const auto self = std::move(static_cast<LoopWatch*>(handle->data)->self_);
    if (self->cleanup_ != nullptr) napi_remove_async_cleanup_hook(self->cleanup_);
  });
}

}  // namespace iserfs::addon
