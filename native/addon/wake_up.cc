#include "addon/wake_up.h"

#include <utility>

namespace iserfs::addon {

WakeUp::WakeUp(Napi::Env env, std::function<void(Napi::Env)> onWake) : env_(env), onWake_(std::move(onWake)) {
  const Napi::String name = Napi::String::New(env, "iserfs:rdma");
  const auto status = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, &WakeUp::call, &function_);
  if (status != napi_ok) throw Napi::Error::New(env, "no thread-safe function can be made");
  holdEventLoop(false);
}

void WakeUp::send() noexcept {
  // It has no bound, so it does not block; it refuses only while the environment ends, and then nobody waits for it.
  static_cast<void>(napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking));
}

void WakeUp::holdEventLoop(bool hold) noexcept {
  static_cast<void>(hold ? napi_ref_threadsafe_function(env_, function_) : napi_unref_threadsafe_function(env_, function_));
}

void WakeUp::release() noexcept { static_cast<void>(napi_release_threadsafe_function(function_, napi_tsfn_abort)); }

void WakeUp::call(napi_env env, napi_value, void* context, void*) noexcept {
  if (env == nullptr) return;  // The environment ends: `context` may be gone.
  static_cast<WakeUp*>(context)->onWake_(Napi::Env(env));
}

}  // namespace iserfs::addon
