#include "addon/hole_search.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "node-api/arguments.h"

namespace iserfs::addon {

namespace {

static_assert(sizeof(off_t) == sizeof(std::int64_t), "a file may be longer than 2 GiB");

/** A file system may look on its disk, or wait for whoever writes to the file: on a thread of libuv's pool. */
class SeekWorker final : public Napi::AsyncWorker {
 public:
  /** Owns `descriptor`. */
  SeekWorker(Napi::Env env, int descriptor, off_t offset, int whence)
      : AsyncWorker(env), descriptor_(descriptor), offset_(offset), whence_(whence), deferred_(env) {}
  SeekWorker(const SeekWorker&) = delete;
  SeekWorker& operator=(const SeekWorker&) = delete;
  ~SeekWorker() override { ::close(descriptor_); }

  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  /** Thread: one of the pool. */
  void Execute() override {
    found_ = ::lseek(descriptor_, offset_, whence_);
    if (found_ < 0) found_ = -errno;
  }
  void OnOK() override { deferred_.Resolve(Napi::Number::New(Env(), static_cast<double>(found_))); }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

  const int descriptor_;
  const off_t offset_;
  const int whence_;
  const Napi::Promise::Deferred deferred_;
  off_t found_ = 0;
};

}  // namespace

Napi::Value seek(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  const auto number = static_cast<int>(node_api::wholeFrom(info[0], "the descriptor", 0, INT32_MAX));
  const auto offset = static_cast<off_t>(node_api::wholeFrom(info[1], "the offset", 0, node_api::maxWhole));
  const auto whence = node_api::booleanFrom(info[2], "isHole") ? SEEK_HOLE : SEEK_DATA;
  const int copy = ::fcntl(number, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    const auto deferred = Napi::Promise::Deferred::New(env);
    deferred.Resolve(Napi::Number::New(env, -errno));
    return deferred.Promise();
  }
  auto* worker = new SeekWorker(env, copy, offset, whence);
  const auto promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace iserfs::addon
