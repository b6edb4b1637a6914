/**
 * A connected TCP socket in an environment's event loop: bytes go to and come from memory that JavaScript names, at the moment that
 * it does, and none is referred to between two calls. Knows no protocol above TCP.
 */
#pragma once

#include <napi.h>
#include <uv.h>

#include <memory>

#include "iwarp/socket.h"
#include "node-api/callback.h"

namespace iserfs::addon {

/** Thread: JavaScript, throughout. It holds the event loop open while it watches for something. */
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  /**
   * Takes over a copy of `descriptor`, which must be a socket that is connected. `ready(isReadable, isWritable)` is called as `watch`
   * asks. Throws Napi::Error.
   */
  static Napi::Object open(Napi::Env env, int descriptor, Napi::Function ready);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() = default;

 private:
  Stream(Napi::Env env, rdma::iwarp::Descriptor socket, Napi::Function ready);

  void start();
  /** The functions that `src/iser/rdma/addon.ts` calls AddonStream; once this is closed they answer EBADF. */
  Napi::Object exports(Napi::Env env);
  void onReady(int status, int events);
  /** Events of libuv. */
  void watchFor(int events);
  void close();

  Napi::Value receive(const Napi::CallbackInfo& info);
  Napi::Value send(const Napi::CallbackInfo& info);
  Napi::Value watch(const Napi::CallbackInfo& info);
  Napi::Value endSending(const Napi::CallbackInfo& info);
  Napi::Value closeNow(const Napi::CallbackInfo& info);

  const napi_env env_;
  rdma::iwarp::Descriptor socket_;
  uv_poll_t poll_{};
  int events_ = 0;
  bool isClosed_ = false;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  /** From `start` to the end of closing: the event loop refers to this. */
  std::shared_ptr<Stream> self_;
  node_api::Callback ready_;
};

}  // namespace iserfs::addon
