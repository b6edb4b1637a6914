#include "addon/context.h"

#include <utility>

#include "addon/arguments.h"
#include "addon/records.h"

namespace iserfs::addon {

Context::Context(Napi::Env env, Napi::Function deliver)
    : env_(env), wakeUp_(env, [this](Napi::Env callEnv) { deliverAll(callEnv); }),
      queue_(std::make_shared<EventQueue>([this] {
        if (!isDeliveryNear_) wakeUp_.send();
      })),
      deliver_(Napi::Persistent(deliver)),
      records_(Napi::Persistent(Napi::Uint32Array::New(env, recordWords * recordCapacity))),
      advertised_(Napi::Persistent(Napi::Float64Array::New(env, 2))) {}

void Context::shutDown() noexcept {
  queue_->stop();
  requests_.clear();
  listeners_.clear();
  for (auto& [number, connection] : connections_) {
    try {
      connection.queuePair->close(rdma::CloseMode::abrupt);
    } catch (const std::exception&) {
      // The provider's end ends it.
    }
  }
  connections_.clear();
  if (iwarpWatch_) iwarpWatch_->close();
  iwarpTurns_.reset();
  iwarp_.reset();
  verbs_.reset();
  wakeUp_.release();
}

rdma::Provider& Context::provider(Napi::Value name) {
  const auto text = textFrom(name, "the provider");
  if (text == "iwarp") {
    if (iwarp_ == nullptr) {
      auto made = rdma::makeIwarpProvider();
      iwarpTurns_ = std::make_unique<Napi::AsyncContext>(env_, "iserfs:iwarp");
      iwarpWatch_ = LoopWatch::start(env_, made->turnDescriptor(), [this] { turnIwarp(); });
      iwarp_ = std::move(made);
    }
    return *iwarp_;
  }
  if (text == "verbs") {
    if (verbs_ == nullptr) verbs_ = rdma::makeVerbsProvider();
    return *verbs_;
  }
  throw Napi::TypeError::New(name.Env(), "no such provider: " + text);
}

void Context::turnIwarp() noexcept {
  const Napi::HandleScope scope(env_);
  const Napi::CallbackScope callback(env_, *iwarpTurns_);
  workAndDeliver(env_, [this] { iwarp_->turn(); });
}

Context::Connection& Context::connection(const Napi::CallbackInfo& info) {
  const auto found = connections_.find(unsignedFrom(info[0], "the connection"));
  if (found == connections_.end()) throw Napi::TypeError::New(info.Env(), "no such connection");
  return found->second;
}

std::uint32_t Context::addConnection(std::uint32_t number, std::shared_ptr<rdma::QueuePair> queuePair, std::shared_ptr<ConnectionSink> sink,
                                     const std::vector<rdma::ReceiveRequest>& receives) {
  Connection connection{.queuePair = std::move(queuePair), .sink = std::move(sink), .outstanding = {}};
  for (const auto& receive : receives) connection.outstanding.add(rdma::Opcode::receive, receive.workRequestId, receive.segment.length);
  connections_.emplace(number, std::move(connection));
  holdEventLoop();
  return number;
}

std::uint32_t Context::nextNumber() {
  // 2^32 connections are not made in the life of a process; to run on from 1 would still not meet a number in use.
  do {
    ++lastNumber_;
  } while (lastNumber_ == 0 || connections_.contains(lastNumber_) || listeners_.contains(lastNumber_) || requests_.contains(lastNumber_));
  return lastNumber_;
}

void Context::holdEventLoop() {
  const bool hold = !connections_.empty() || !listeners_.empty();
  if (std::exchange(holdsEventLoop_, hold) != hold) wakeUp_.holdEventLoop(hold);
}

}  // namespace iserfs::addon
