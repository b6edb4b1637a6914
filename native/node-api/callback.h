/** Calls of JavaScript that no JavaScript waits for: there is nobody to catch what they throw. Thread: JavaScript. */
#pragma once

#include <napi.h>

#include <initializer_list>
#include <memory>

namespace iserfs::node_api {

/**
 * What a call that ended with `status` has thrown becomes an uncaught exception. Not by way of Napi::Error: what ends a worker in the
 * middle of a call is no exception that one could be made of.
 */
inline void reportThrown(napi_env env, napi_status status) noexcept {
  napi_value thrown = nullptr;
  if (status != napi_ok && napi_get_and_clear_last_exception(env, &thrown) == napi_ok) static_cast<void>(napi_fatal_exception(env, thrown));
}

/** A function that the event loop calls. */
class Callback {
 public:
  /** `resource` is what async hooks know its calls by. */
  Callback(Napi::Function function, const char* resource)
      : env_(function.Env()), function_(Napi::Persistent(function)), context_(std::make_unique<Napi::AsyncContext>(env_, resource)) {}
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;
  ~Callback() = default;

  /** Within a handle scope. What the function puts off (ticks, promises) has run when it returns. Not after `release`. */
  void call(std::initializer_list<napi_value> arguments) const {
    napi_value result = nullptr;
    reportThrown(env_, napi_make_callback(env_, *context_, Napi::Env(env_).Global(), function_.Value(), arguments.size(), arguments.begin(), &result));
  }

  /** Lets go of the function: whatever holds this may be held by it. */
  void release() {
    function_.Reset();
    context_.reset();
  }

 private:
  const napi_env env_;
  Napi::FunctionReference function_;
  std::unique_ptr<Napi::AsyncContext> context_;
};

}  // namespace iserfs::node_api
