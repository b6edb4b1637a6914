#include "fuse-addon/loop_handles.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace iserfs::fuse_addon {

LoopHandles* LoopHandles::open(uv_loop_t* loop, int descriptor, std::function<void()> onReadable, std::function<void()> onWake) {
  auto* handles = new LoopHandles();
  handles->onReadable_ = std::move(onReadable);
  handles->onWake_ = std::move(onWake);
  handles->poll_.data = handles;
  handles->async_.data = handles;
  int error = uv_poll_init(loop, &handles->poll_, descriptor);
  if (error == 0) {
    handles->open_++;
    error = uv_async_init(loop, &handles->async_, [](uv_async_t* handle) { static_cast<LoopHandles*>(handle->data)->onWake_(); });
    if (error == 0) {
      handles->open_++;
      handles->poll(true);
      return handles;
    }
    handles->closeHandle(reinterpret_cast<uv_handle_t*>(&handles->poll_));
  } else {
    delete handles;
  }
  throw std::runtime_error(std::string("the event loop does not take the descriptor: ") + uv_strerror(error));
}

void LoopHandles::poll(bool on) noexcept {
  if (on) uv_poll_start(&poll_, UV_READABLE, [](uv_poll_t* handle, int, int) { static_cast<LoopHandles*>(handle->data)->onReadable_(); });
  else uv_poll_stop(&poll_);
}

void LoopHandles::close(std::function<void()> closed) noexcept {
  closed_ = std::move(closed);
  closeHandle(reinterpret_cast<uv_handle_t*>(&poll_));
  closeHandle(reinterpret_cast<uv_handle_t*>(&async_));
}

void LoopHandles::closeHandle(uv_handle_t* handle) noexcept {
  uv_close(handle, [](uv_handle_t* each) {
    auto* handles = static_cast<LoopHandles*>(each->data);
    if (--handles->open_ > 0) return;
    const auto closed = std::move(handles->closed_);
    delete handles;
    if (closed) closed();
  });
}

}  // namespace iserfs::fuse_addon
