/**
 * The addon's entry, once for each environment that loads it: `open(deliver)` makes a context, whose functions are all there is of
 * RDMA. `openStream(descriptor, ready)` is for TCP without, `crc32c(bytes, previous)` for whoever has digests to make, and
 * `seek(descriptor, offset, isHole)` for the files of a target.
 * The environment owns its contexts and ends them before it goes away.
 */
#include <napi.h>

#include <memory>
#include <vector>

#include "addon/context.h"
#include "addon/hole_search.h"
#include "addon/records.h"
#include "addon/stream.h"
#include "iwarp/crc32c.h"
#include "node-api/arguments.h"

namespace iserfs::addon {

namespace {

/** The contexts of an environment, which goes away after they have been shut down. */
class EnvironmentState {
 public:
  Napi::Object open(Napi::Env env, Napi::Function deliver) {
    auto& context = *contexts_.emplace_back(std::make_unique<Context>(env, deliver));
    // Hooks run last in, first out: this one before that of the context's thread-safe function, which needs to be there for it.
    const auto shutDown = [](void* data) { static_cast<Context*>(data)->shutDown(); };
    if (napi_add_env_cleanup_hook(env, shutDown, &context) != napi_ok) throw Napi::Error::New(env, "the environment is ending");
    return context.exports(env);
  }

 private:
  std::vector<std::unique_ptr<Context>> contexts_;
};

Napi::Value open(const Napi::CallbackInfo& info) {
  if (!info[0].IsFunction()) throw Napi::TypeError::New(info.Env(), "open wants a function");
  return info.Env().GetInstanceData<EnvironmentState>()->open(info.Env(), info[0].As<Napi::Function>());
}

Napi::Value openStream(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber() || !info[1].IsFunction()) throw Napi::TypeError::New(info.Env(), "openStream wants a descriptor and a function");
  return Stream::open(info.Env(), info[0].As<Napi::Number>().Int32Value(), info[1].As<Napi::Function>());
}

/** The CRC32C of what `previous` is that of, followed by `bytes`. Thread: js. */
Napi::Value crc32c(const Napi::CallbackInfo& info) {
  const auto bytes = node_api::elementsFrom<std::byte>(info[0], "the bytes");
  const auto previous = node_api::unsignedFrom(info[1], "the previous CRC");
  return Napi::Number::New(info.Env(), ~rdma::iwarp::crc32cUpdate(~previous, bytes.data(), bytes.size()));
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  auto state = std::make_unique<EnvironmentState>();
  env.SetInstanceData(state.release());
  exports.Set("version", static_cast<double>(interfaceVersion));
  exports.Set("open", Napi::Function::New(env, open, "open"));
  exports.Set("openStream", Napi::Function::New(env, openStream, "openStream"));
  exports.Set("crc32c", Napi::Function::New(env, crc32c, "crc32c"));
  exports.Set("seek", Napi::Function::New(env, seek, "seek"));
  return exports;
}

}  // namespace

}  // namespace iserfs::addon

static Napi::Object initialiseModule(Napi::Env env, Napi::Object exports) { return iserfs::addon::initialise(env, exports); }

NODE_API_MODULE(iserfs_rdma, initialiseModule)
