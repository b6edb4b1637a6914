/**
 * What JavaScript calls. Arguments are positions, not objects, where calls are frequent. A connection that has ended takes requests
 * still: they are kept as outstanding, and `flush` gives them back with all others that did not complete.
 */
#include <array>
#include <exception>
#include <stdexcept>
#include <utility>

#include "addon/arguments.h"
#include "addon/context.h"
#include "node-api/exports.h"

namespace iserfs::addon {

namespace {

/** A provider's with the number of the failure, so that JavaScript can tell what kind it is. */
Napi::Error errorFrom(Napi::Env env, const std::exception& thrown) {
  const auto* failed = dynamic_cast<const rdma::ProviderError*>(&thrown);
  if (failed == nullptr) return node_api::errorFrom(env, thrown);
  auto error = Napi::Error::New(env, failed->failure().text);
  error.Set("failure", Napi::Number::New(env, static_cast<double>(failed->failure().code)));
  return error;
}

rdma::RemoteAddress remoteAddressFrom(const Napi::CallbackInfo& info, std::size_t first) {
  return {.tag = unsignedFrom(info[first], "the tag"), .address = unsigned64From(info[first + 1], "the address")};
}

rdma::Address addressFrom(const Napi::CallbackInfo& info, std::size_t first) {
  return {.host = textFrom(info[first], "the host"),
          .port = static_cast<std::uint16_t>(unsignedFrom(info[first + 1], "the port", UINT16_MAX))};
}

}  // namespace

/** Its end is the environment's: it is there whenever JavaScript calls. */
Napi::Object Context::exports(Napi::Env env) {
  node_api::Exports functions(env, [this] { return this; }, {.errorFrom = &errorFrom});
  functions.add<&Context::allocate>("allocate");
  functions.add<&Context::free>("free");
  functions.add<&Context::openProvider>("openProvider");
  functions.add<&Context::listDevices>("listDevices");
  functions.add<&Context::connect>("connect");
  functions.add<&Context::listen>("listen");
  functions.add<&Context::closeListener>("closeListener");
  functions.add<&Context::accept>("accept");
  functions.add<&Context::reject>("reject");
  functions.add<&Context::postReceive>("postReceive");
  functions.add<&Context::postSend>("postSend");
  functions.add<&Context::cork>("cork");
  functions.add<&Context::uncork>("uncork");
  functions.add<&Context::postTransfer<rdma::Opcode::write, &rdma::QueuePair::postWrite>>("postWrite");
  functions.add<&Context::postTransfer<rdma::Opcode::read, &rdma::QueuePair::postRead>>("postRead");
  functions.add<&Context::advertise>("advertise");
  functions.add<&Context::revoke>("revoke");
  functions.add<&Context::close>("close");
  functions.add<&Context::flush>("flush");
  functions.add<&Context::retire>("retire");
  auto object = functions.object();
  object.Set("records", records_.Value());
  object.Set("advertised", advertised_.Value());
  return object;
}

/** allocate(length): { id, buffer } */
Napi::Value Context::allocate(const Napi::CallbackInfo& info) {
  const auto allocated = arenas_->allocate(info.Env(), unsignedFrom(info[0], "the length"));
  auto object = Napi::Object::New(info.Env());
  object.Set("id", static_cast<double>(allocated.id));
  object.Set("buffer", allocated.buffer);
  return object;
}

/** free(id, buffer) */
Napi::Value Context::free(const Napi::CallbackInfo& info) {
  if (!info[1].IsArrayBuffer()) throw Napi::TypeError::New(info.Env(), "the arena must be an ArrayBuffer");
  arenas_->free(unsignedFrom(info[0], "the arena"), info[1].As<Napi::ArrayBuffer>());
  return info.Env().Undefined();
}

/** openProvider(provider): throws where it cannot be had */
Napi::Value Context::openProvider(const Napi::CallbackInfo& info) {
  static_cast<void>(provider(info[0]));
  return info.Env().Undefined();
}

/** listDevices(): { name, fabric }[] of verbs */
Napi::Value Context::listDevices(const Napi::CallbackInfo& info) {
  auto array = Napi::Array::New(info.Env());
  for (const auto& device : rdma::listVerbsDevices()) {
    auto object = Napi::Object::New(info.Env());
    object.Set("name", device.name);
    object.Set("fabric", device.fabric);
    array.Set(array.Length(), object);
  }
  return array;
}

/** connect(provider, host, port, options, timeoutMs): connection */
Napi::Value Context::connect(const Napi::CallbackInfo& info) {
  auto& with = provider(info[0]);
  const auto to = addressFrom(info, 1);
  const auto options = optionsFrom(info[3], *arenas_);
  const auto timeoutMs = unsignedFrom(info[4], "the time limit");
  const auto number = nextNumber();
  auto sink = std::make_shared<ConnectionSink>(queue_, number);
  auto queuePair = with.connect(to, options, timeoutMs, sink);
  return Napi::Number::New(info.Env(), addConnection(number, std::move(queuePair), std::move(sink), options.receives));
}

/** listen(provider, host, port): { listener, localAddress } */
Napi::Value Context::listen(const Napi::CallbackInfo& info) {
  auto& with = provider(info[0]);
  const auto at = addressFrom(info, 1);
  const auto number = nextNumber();
  auto listener = with.listen(at, std::make_shared<ListenerSink>(queue_, number));
  auto object = Napi::Object::New(info.Env());
  object.Set("listener", static_cast<double>(number));
  object.Set("localAddress", listener->localAddress());
  listeners_.emplace(number, std::move(listener));
  holdEventLoop();
  return object;
}

/** closeListener(listener) */
Napi::Value Context::closeListener(const Napi::CallbackInfo& info) {
  listeners_.erase(unsignedFrom(info[0], "the listener"));
  holdEventLoop();
  return info.Env().Undefined();
}

/** accept(request, options): connection */
Napi::Value Context::accept(const Napi::CallbackInfo& info) {
  const auto found = requests_.find(unsignedFrom(info[0], "the request"));
  if (found == requests_.end()) throw Napi::TypeError::New(info.Env(), "no such request");
  const auto options = optionsFrom(info[1], *arenas_);
  const auto number = nextNumber();
  auto sink = std::make_shared<ConnectionSink>(queue_, number);
  const auto request = std::move(found->second);
  requests_.erase(found);
  auto queuePair = request->accept(options, sink);
  return Napi::Number::New(info.Env(), addConnection(number, std::move(queuePair), std::move(sink), options.receives));
}

/** reject(request): ignored where it was answered */
Napi::Value Context::reject(const Napi::CallbackInfo& info) {
  const auto found = requests_.find(unsignedFrom(info[0], "the request"));
  if (found == requests_.end()) return info.Env().Undefined();
  const auto request = std::move(found->second);
  requests_.erase(found);
  request->reject();
  return info.Env().Undefined();
}

/** postReceive(connection, id, arena, offset, length) */
Napi::Value Context::postReceive(const Napi::CallbackInfo& info) {
  auto& to = connection(info);
  const auto id = unsignedFrom(info[1], "the id");
  const auto segment = segmentFrom(info, 2, *arenas_);
  if (!to.sink->hasEnded()) to.queuePair->postReceive(id, segment);
  to.outstanding.add(rdma::Opcode::receive, id, segment.length);
  return info.Env().Undefined();
}

/** postSend(connection, id, invalidate | undefined, arena, offset, length[, arena, offset, length]) */
Napi::Value Context::postSend(const Napi::CallbackInfo& info) {
  auto& to = connection(info);
  const auto id = unsignedFrom(info[1], "the id");
  std::optional<std::uint32_t> invalidate;
  if (!info[2].IsUndefined()) invalidate = unsignedFrom(info[2], "the tag");
  std::array<rdma::Segment, 2> segments{segmentFrom(info, 3, *arenas_)};
  std::size_t count = 1;
  if (info.Length() > 6) segments[count++] = segmentFrom(info, 6, *arenas_);
  const auto length = std::uint64_t{segments[0].length} + segments[1].length;
  if (length > UINT32_MAX) throw std::out_of_range("a message of more than 4 GiB");
  if (!to.sink->hasEnded()) to.queuePair->postSend(id, std::span(segments).first(count), invalidate);
  to.outstanding.add(rdma::Opcode::send, id, static_cast<std::uint32_t>(length));
  return info.Env().Undefined();
}

/** postWrite, postRead(connection, id, tag, address, arena, offset, length) */
template <rdma::Opcode opcode, auto post>
Napi::Value Context::postTransfer(const Napi::CallbackInfo& info) {
  auto& to = connection(info);
  const auto id = unsignedFrom(info[1], "the id");
  const auto remote = remoteAddressFrom(info, 2);
  const auto segment = segmentFrom(info, 4, *arenas_);
  if (!to.sink->hasEnded()) (to.queuePair.get()->*post)(id, segment, remote);
  to.outstanding.add(opcode, id, segment.length);
  return info.Env().Undefined();
}

/** cork(connection) */
Napi::Value Context::cork(const Napi::CallbackInfo& info) {
  connection(info).queuePair->cork();
  return info.Env().Undefined();
}

/** uncork(connection): also delivers what is complete by that */
Napi::Value Context::uncork(const Napi::CallbackInfo& info) {
  const auto queuePair = connection(info).queuePair;
  workAndDeliver(info.Env(), [&] { queuePair->uncork(); });
  return info.Env().Undefined();
}

/** advertise(connection, access (0 write, 1 read), arena, offset, length): fills `advertised` */
Napi::Value Context::advertise(const Napi::CallbackInfo& info) {
  auto& to = connection(info);
  const auto access = unsignedFrom(info[1], "the access", 1) == 0 ? rdma::Access::remoteWrite : rdma::Access::remoteRead;
  const auto segment = segmentFrom(info, 2, *arenas_);
  rdma::RemoteAddress at;
  if (!to.sink->hasEnded()) at = to.queuePair->advertise(segment, access);
  auto answer = advertised_.Value();
  if (answer.ElementLength() < 2) throw std::runtime_error("the array for the answer is gone");
  answer[0] = static_cast<double>(at.tag);
  answer[1] = static_cast<double>(at.address);
  return info.Env().Undefined();
}

/** revoke(connection, tag) */
Napi::Value Context::revoke(const Napi::CallbackInfo& info) {
  connection(info).queuePair->revoke(unsignedFrom(info[1], "the tag"));
  return info.Env().Undefined();
}

/** close(connection, abruptly) */
Napi::Value Context::close(const Napi::CallbackInfo& info) {
  connection(info).queuePair->close(booleanFrom(info[1], "abruptly") ? rdma::CloseMode::abrupt : rdma::CloseMode::orderly);
  return info.Env().Undefined();
}

/** flush(connection), after `closed`: takes out the requests that did not complete, as opcode, id and length each; undefined where there are none */
Napi::Value Context::flush(const Napi::CallbackInfo& info) {
  const auto left = connection(info).outstanding.flush();
  if (left.empty()) return info.Env().Undefined();
  auto words = Napi::Uint32Array::New(info.Env(), left.size() * 3);
  for (std::size_t index = 0; index < left.size(); ++index) {
    words[index * 3] = static_cast<std::uint32_t>(left[index].opcode);
    words[index * 3 + 1] = left[index].workRequestId;
    words[index * 3 + 2] = left[index].byteLength;
  }
  return words;
}

/** retire(connection), after `closed` */
Napi::Value Context::retire(const Napi::CallbackInfo& info) {
  connections_.erase(unsignedFrom(info[0], "the connection"));
  holdEventLoop();
  return info.Env().Undefined();
}

}  // namespace iserfs::addon
