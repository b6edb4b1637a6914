/**
 * From the event queue to JavaScript: all that has come is taken at once and handed over in runs of `recordCapacity`, through one
 * typed array. Nothing is allocated for a completion; connections that come and go bring objects along.
 */
#include <array>
#include <utility>

#include "addon/arguments.h"
#include "addon/context.h"
#include "addon/records.h"
#include "node-api/callback.h"

namespace iserfs::addon {

namespace {

Napi::Object factsObject(Napi::Env env, const rdma::ConnectionFacts& facts) {
  auto object = Napi::Object::New(env);
  object.Set("device", facts.device);
  object.Set("fabric", facts.fabric);
  object.Set("localAddress", facts.localAddress);
  object.Set("remoteAddress", facts.remoteAddress);
  object.Set("ird", static_cast<double>(facts.ird));
  object.Set("ord", static_cast<double>(facts.ord));
  object.Set("crc", facts.crc.has_value() ? Napi::Value(Napi::Boolean::New(env, *facts.crc)) : env.Undefined());
  object.Set("protection", static_cast<double>(facts.protection));
  object.Set("canPeerInvalidate", facts.canPeerInvalidate);
  object.Set("privateData", bytesTo(env, facts.privateData));
  return object;
}

}  // namespace

void Context::deliverAll(Napi::Env env) {
  Batch batch = std::exchange(spare_, {});
  queue_->take(batch);
  for (std::size_t next = 0; next < batch.events.size();) {
    const Napi::HandleScope scope(env);
    try {
      // No pointer into the array is kept over a call of JavaScript, which could detach it.
      auto records = records_.Value();
      if (records.ElementLength() < recordWords * recordCapacity) throw Napi::Error::New(env, "the array of events is gone");
      Napi::Array notices;
      std::size_t count = 0;
      while (next < batch.events.size() && count < recordCapacity) {
        if (encode(env, batch.events[next++], batch, records.Data() + count * recordWords, notices)) ++count;
      }
      if (count == 0) continue;
      const std::array<napi_value, 2> arguments{Napi::Number::New(env, static_cast<double>(count)),
                                                notices.IsEmpty() ? env.Undefined() : notices};
      // A wake-up and a turn have a callback scope around this; `uncork` is called by JavaScript.
      node_api::reportThrown(env, napi_call_function(env, env.Undefined(), deliver_.Value(), arguments.size(), arguments.data(), nullptr));
    } catch (const Napi::Error& error) {
      // JavaScript catches what its handlers throw. What comes here is an environment that ends, or a fault of ours.
      static_cast<void>(napi_fatal_exception(env, error.Value()));
    }
  }
  batch.events.clear();
  batch.notices.clear();
  spare_ = std::move(batch);
}

bool Context::encode(Napi::Env env, Event& event, Batch& batch, std::uint32_t* record, Napi::Array& notices) {
  const auto found = connections_.find(event.owner);
  switch (event.kind) {
    case EventKind::completion: {
      const auto& completion = event.completion;
      // After `retire` all has completed.
      if (found == connections_.end() || !found->second.outstanding.remove(completion.opcode, completion.workRequestId)) return false;
      writeRecord(record, event, completion.workRequestId);
      return true;
    }
    case EventKind::established:
    case EventKind::closed:
      if (found == connections_.end()) return false;
      break;
    case EventKind::requested:
      if (!listeners_.contains(event.owner)) {
        batch.notices[event.notice] = rdma::Failure{};  // Rejects it.
        return false;
      }
      break;
  }
  if (notices.IsEmpty()) notices = Napi::Array::New(env);
  const auto place = notices.Length();
  notices.Set(place, describe(env, batch.notices[event.notice]));
  writeRecord(record, event, place);
  return true;
}

Napi::Value Context::describe(Napi::Env env, Notice& notice) {
  if (const auto* facts = std::get_if<rdma::ConnectionFacts>(&notice)) return factsObject(env, *facts);
  auto object = Napi::Object::New(env);
  if (const auto* failure = std::get_if<rdma::Failure>(&notice)) {
    object.Set("code", static_cast<double>(failure->code));
    object.Set("text", failure->text);
    return object;
  }
  auto& request = std::get<std::unique_ptr<rdma::ConnectionRequest>>(notice);
  const auto number = nextNumber();
  object.Set("request", static_cast<double>(number));
  object.Set("remoteAddress", request->remoteAddress());
  object.Set("privateData", bytesTo(env, request->privateData()));
  requests_.emplace(number, std::move(request));
  return object;
}

}  // namespace iserfs::addon
