/**
 * The addon's entry, once for each environment that loads it: `mount(options)` makes a mount and its descriptor, `open(descriptor,
 * deliver)` serves one; `allocate(length)` is memory that begins with a page.
 */
#include <napi.h>
#include <sys/mman.h>

#include <memory>

#include "fuse-addon/connection.h"
#include "fuse-addon/records.h"
#include "fuse/mounting.h"
#include "node-api/arguments.h"
#include "node-api/exports.h"

namespace iserfs::fuse_addon {

namespace {

/** A mount takes its time, and may hang: on a thread of libuv's pool. */
class MountWorker final : public Napi::AsyncWorker {
 public:
  MountWorker(Napi::Env env, fuse::MountOptions options) : AsyncWorker(env), options_(std::move(options)), deferred_(env) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override { device_ = fuse::mount(options_); }
  void OnOK() override { deferred_.Resolve(Napi::Number::New(Env(), device_.release())); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

  const fuse::MountOptions options_;
  const Napi::Promise::Deferred deferred_;
  fuse::Descriptor device_;
};

Napi::Value mount(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) throw Napi::TypeError::New(info.Env(), "mount wants options");
  const auto object = info[0].As<Napi::Object>();
  const auto text = [&object](const char* name) { return node_api::textFrom(object.Get(name), name); };
  const auto flag = [&object](const char* name) { return node_api::booleanFrom(object.Get(name), name); };
  auto* worker = new MountWorker(info.Env(), {.mountpoint = text("mountpoint"),
                                              .source = text("source"),
                                              .subtype = text("subtype"),
                                              .allowOther = flag("allowOther"),
                                              .readOnly = flag("readOnly"),
                                              .viaHelper = flag("viaHelper")});
  const auto promise = worker->promise();
  worker->Queue();
  return promise;
}

/** The descriptor belongs to the connection from now on. */
Napi::Value openConnection(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber() || !info[1].IsFunction()) throw Napi::TypeError::New(info.Env(), "open wants a descriptor and a function");
  return node_api::throwingInJavaScript(info.Env(), [&info] {
    const auto connection =
        std::make_shared<Connection>(info.Env(), fuse::Descriptor(info[0].As<Napi::Number>().Int32Value()), info[1].As<Napi::Function>());
    connection->start(info.Env());
    return connection->exports(info.Env());
  });
}

Napi::Value allocate(const Napi::CallbackInfo& info) {
  const auto length = static_cast<std::size_t>(info[0].ToNumber().Int64Value());
  void* data = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw Napi::RangeError::New(info.Env(), "there is no memory");
  return Napi::ArrayBuffer::New(info.Env(), data, length, [length](Napi::Env, void* memory) { ::munmap(memory, length); });
}

}  // namespace

}  // namespace iserfs::fuse_addon

static Napi::Object initialiseModule(Napi::Env env, Napi::Object exports) {
  using namespace iserfs::fuse_addon;
  exports.Set("version", static_cast<double>(interfaceVersion));
  exports.Set("mount", Napi::Function::New(env, mount, "mount"));
  exports.Set("open", Napi::Function::New(env, openConnection, "open"));
  exports.Set("allocate", Napi::Function::New(env, allocate, "allocate"));
  return exports;
}

NODE_API_MODULE(iserfs_fuse, initialiseModule)
