/**
 * A channel in an environment of Node: its descriptor in the event loop, its guard and notifier, and requests on their way to
 * JavaScript and back, one call for all that came together. All N-API is here and in module.cc.
 */
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "fuse-addon/loop_handles.h"
#include "fuse-addon/pending.h"
#include "fuse/channel.h"
#include "fuse/guard.h"
#include "fuse/notifier.h"
#include "node-api/callback.h"

namespace iserfs::fuse_addon {

/** Thread: JavaScript, throughout. */
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  /**
   * `deliver(count, isStarved, hasEnded, done)` is called with `count` requests in `records`; `isStarved` when a slot is missing;
   * with 0 when the terms are settled with the kernel;
   * `hasEnded` once, last of all; `done` are ids of notices, or undefined.
   */
  Connection(Napi::Env env, fuse::Descriptor device, Napi::Function deliver);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() = default;

  /** Begins to serve; throws Napi::Error. */
  void start(Napi::Env env);
  /** The functions that `src/fuse/native-addon.ts` calls AddonConnection; once this is closed they do nothing. */
  Napi::Object exports(Napi::Env env);

 private:
  // connection.cc: the way from the kernel.
  void onReadable();
  void onWake();
  void serveHits();
  /** All that is there. False where JavaScript has closed this meanwhile. */
  bool deliverAll(bool isStarved);
  bool call(std::size_t count, bool isStarved, bool hasEnded, Napi::Value done);
  std::size_t encode();
  void pollAsNeeded();
  void close();

  // connection_exports.cc: what JavaScript calls.
  Napi::Value answer(const Napi::CallbackInfo& info);
  Napi::Value answerOpen(const Napi::CallbackInfo& info);
  Napi::Value answerScratch(const Napi::CallbackInfo& info);
  Napi::Value answerData(const Napi::CallbackInfo& info);
  Napi::Value addSlot(const Napi::CallbackInfo& info);
  Napi::Value takeSlot(const Napi::CallbackInfo& info);
  Napi::Value setSize(const Napi::CallbackInfo& info);
  Napi::Value drop(const Napi::CallbackInfo& info);
  Napi::Value show(const Napi::CallbackInfo& info);
  Napi::Value hide(const Napi::CallbackInfo& info);
  Napi::Value takeHits(const Napi::CallbackInfo& info);
  Napi::Value hits(const Napi::CallbackInfo& info);
  Napi::Value forgetInode(const Napi::CallbackInfo& info);
  Napi::Value forgetName(const Napi::CallbackInfo& info);
  Napi::Value freeSlots(const Napi::CallbackInfo& info);
  Napi::Value figures(const Napi::CallbackInfo& info);
  Napi::Value closeNow(const Napi::CallbackInfo& info);
  void giveBack(std::uint32_t slot);

  const napi_env env_;
  const std::shared_ptr<fuse::Channel> channel_;
  std::optional<fuse::Guard> guard_;
  std::optional<fuse::Notifier> notifier_;
  LoopHandles* handles_ = nullptr;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  int turnsWithoutLook_ = 0;
  int turnsWithoutSpin_ = 0;
  bool isPolling_ = true;
  bool hasToldInitialised_ = false;
  bool hasToldEnd_ = false;
  bool isClosed_ = false;
  Pending pending_;
  std::vector<fuse::Message> batch_;
  /** By number; null where it is not lent. */
  std::vector<std::byte*> slots_;

  // Let go of when the event loop has.
  node_api::Callback deliver_;
  Napi::Reference<Napi::Float64Array> records_;
  Napi::Reference<Napi::Uint8Array> names_;
  Napi::Reference<Napi::Uint8Array> scratch_;
  // Where those have their bytes.
  double* recordNumbers_ = nullptr;
  std::uint8_t* nameBytes_ = nullptr;
  std::uint8_t* scratchBytes_ = nullptr;
};

}  // namespace iserfs::fuse_addon
