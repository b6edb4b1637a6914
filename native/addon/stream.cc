#include "addon/stream.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <string>
#include <utility>

#include "addon/arguments.h"
#include "node-api/exports.h"

namespace iserfs::addon {

namespace {

/** What one call of the system takes. */
constexpr std::size_t maxParts = 1024;

constexpr std::uint32_t readable = 1;
constexpr std::uint32_t writable = 2;

/** Where `value`, a Uint8Array, has its bytes, until JavaScript runs again. */
iovec partFrom(Napi::Value value) {
  const auto bytes = elementsFrom<std::byte>(value, "the bytes");
  return {.iov_base = bytes.data(), .iov_len = bytes.size()};
}

/** The length, or `-errno`. */
Napi::Value outcomeTo(Napi::Env env, const rdma::iwarp::Transfer& transfer) {
  if (transfer.wouldBlock) return Napi::Number::New(env, -EAGAIN);
  if (transfer.error != 0) return Napi::Number::New(env, -transfer.error);
  return Napi::Number::New(env, static_cast<double>(transfer.length));
}

}  // namespace

Napi::Object Stream::open(Napi::Env env, int descriptor, Napi::Function ready) {
  rdma::iwarp::Descriptor socket(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
  if (!socket) throw Napi::Error::New(env, rdma::iwarp::errorText(errno));
  const std::shared_ptr<Stream> stream(new Stream(env, std::move(socket), ready));
  stream->start();
  return stream->exports(env);
}

Stream::Stream(Napi::Env env, rdma::iwarp::Descriptor socket, Napi::Function ready)
    : env_(env), socket_(std::move(socket)), ready_(ready, "iserfs:tcp") {}

void Stream::start() {
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) throw Napi::Error::New(env_, "there is no event loop");
  if (const int error = uv_poll_init(loop, &poll_, socket_.number()); error != 0) throw Napi::Error::New(env_, uv_strerror(error));
  poll_.data = this;
  self_ = shared_from_this();
  const auto endOfEnvironment = [](napi_async_cleanup_hook_handle, void* data) { static_cast<Stream*>(data)->close(); };
  if (napi_add_async_cleanup_hook(env_, endOfEnvironment, this, &cleanup_) != napi_ok) {
    close();
    throw Napi::Error::New(env_, "the environment is ending");
  }
}

Napi::Object Stream::exports(Napi::Env env) {
  const auto find = [self = shared_from_this()] { return self->isClosed_ ? nullptr : self.get(); };
  const auto whenClosed = [](Napi::Env closed) -> Napi::Value { return Napi::Number::New(closed, -EBADF); };
  node_api::Exports functions(env, find, {.whenClosed = whenClosed});
  functions.add<&Stream::receive>("receive");
  functions.add<&Stream::send>("send");
  functions.add<&Stream::watch>("watch");
  functions.add<&Stream::endSending>("endSending");
  functions.add<&Stream::closeNow>("close");
  return functions.object();
}

void Stream::onReady(int status, int events) {
  if (isClosed_) return;
  const Napi::HandleScope scope(env_);
  // That a connection broke is told by the next call of the system.
  const bool both = status < 0;
  ready_.call({Napi::Boolean::New(env_, both || (events & UV_READABLE) != 0), Napi::Boolean::New(env_, both || (events & UV_WRITABLE) != 0)});
  // libuv watches no further; but what came before the end may not have been taken yet.
  if (both && !isClosed_) watchFor(events_);
}

/** (bytes, further): fills the first and then the second, as far as there is something; 0 is the peer's end, else `-errno`. */
Napi::Value Stream::receive(const Napi::CallbackInfo& info) {
  std::array<iovec, 2> parts{};
  std::size_t count = 0;
  parts[count++] = partFrom(info[0]);
  if (!info[1].IsUndefined()) parts[count++] = partFrom(info[1]);
  return outcomeTo(info.Env(), rdma::iwarp::receiveScattered(socket_, {parts.data(), count}));
}

/** (segments): how many bytes of them, in order, have gone, or `-errno`. One of them needs no array, which costs more than all else here. */
Napi::Value Stream::send(const Napi::CallbackInfo& info) {
  if (info[0].IsTypedArray()) {
    const iovec part = partFrom(info[0]);
    return outcomeTo(info.Env(), rdma::iwarp::sendGathered(socket_, {&part, 1}));
  }
  if (!info[0].IsArray()) throw Napi::TypeError::New(info.Env(), "the segments must be an array");
  const auto segments = info[0].As<Napi::Array>();
  std::array<iovec, maxParts> parts;
  const std::size_t count = std::min<std::size_t>(segments.Length(), maxParts);
  for (std::uint32_t index = 0; index < count; index++) {
    napi_value segment = nullptr;
    if (napi_get_element(env_, segments, index, &segment) != napi_ok) throw Napi::Error::New(env_);
    parts[index] = partFrom({env_, segment});
  }
  return outcomeTo(info.Env(), rdma::iwarp::sendGathered(socket_, {parts.data(), count}));
}

/** (events): 1 for readable, 2 for writable. */
Napi::Value Stream::watch(const Napi::CallbackInfo& info) {
  const auto events = unsignedFrom(info[0], "the events", readable | writable);
  watchFor(((events & readable) != 0 ? UV_READABLE : 0) | ((events & writable) != 0 ? UV_WRITABLE : 0));
  return info.Env().Undefined();
}

void Stream::watchFor(int events) {
  events_ = events;
  if (events == 0) uv_poll_stop(&poll_);
  else uv_poll_start(&poll_, events, [](uv_poll_t* handle, int status, int ready) { static_cast<Stream*>(handle->data)->onReady(status, ready); });
}

/** The peer sees the end of what was sent. */
Napi::Value Stream::endSending(const Napi::CallbackInfo& info) {
  ::shutdown(socket_.number(), SHUT_WR);
  return info.Env().Undefined();
}

Napi::Value Stream::closeNow(const Napi::CallbackInfo& info) {
  close();
  return info.Env().Undefined();
}

/** Idempotent. */
void Stream::close() {
  if (std::exchange(isClosed_, true)) return;
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
    const auto self = std::move(static_cast<Stream*>(handle->data)->self_);
    self->ready_.release();
    self->socket_ = {};
    if (self->cleanup_ != nullptr) napi_remove_async_cleanup_hook(self->cleanup_);
  });
}

}  // namespace iserfs::addon
