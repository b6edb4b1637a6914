/**
 * What one loader of the addon has of RDMA: its providers, connections, listeners, requests and arenas, and the way of their events
 * to JavaScript. JavaScript names connections, listeners and requests by numbers, which are never used again: a number that is out
 * of date finds nothing, and does no harm.
 *
 * Providers are made when they are first asked for, for each context anew, so for each environment (the main thread, a worker)
 * too: an environment that ends takes its threads with it and touches no other's. Nothing of a context is shared between
 * environments but the counter of arenas.
 *
 * Threads: JavaScript's throughout; the event loop gives a provider that has none its turns. Others reach the event queue and the
 * wake-up only. `shutDown` runs before the environment goes away, whatever state connections are in: it ends them abruptly, waits for the providers' threads, and drops what they still had
 * to say. Where a process exits without tearing its environments down (process.exit on the main thread), it does not run, and the
 * kernel ends threads and sockets; so nothing in here depends on it.
 *
 * The event loop goes on while there is a connection (from `connect` or `accept` to `retire`) or a listener.
 */
#pragma once

#include <napi.h>

#include <atomic>

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "addon/arena_table.h"
#include "addon/event_queue.h"
#include "addon/loop_watch.h"
#include "addon/outstanding.h"
#include "addon/wake_up.h"
#include "provider/provider.h"

namespace iserfs::addon {

class Context {
 public:
  /** `deliver(count, notices)` is called with `count` events in `records`, and what those that are no completions bring along. */
  Context(Napi::Env env, Napi::Function deliver);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() = default;

  /** The functions that `src/iser/rdma/addon.ts` calls AddonContext. */
  Napi::Object exports(Napi::Env env);
  void shutDown() noexcept;

 private:
  struct Connection {
    std::shared_ptr<rdma::QueuePair> queuePair;
    std::shared_ptr<ConnectionSink> sink;
    Outstanding outstanding;
  };

  // context_exports.cc: what JavaScript calls.
  Napi::Value allocate(const Napi::CallbackInfo& info);
  Napi::Value free(const Napi::CallbackInfo& info);
  Napi::Value openProvider(const Napi::CallbackInfo& info);
  Napi::Value listDevices(const Napi::CallbackInfo& info);
  Napi::Value connect(const Napi::CallbackInfo& info);
  Napi::Value listen(const Napi::CallbackInfo& info);
  Napi::Value closeListener(const Napi::CallbackInfo& info);
  Napi::Value accept(const Napi::CallbackInfo& info);
  Napi::Value reject(const Napi::CallbackInfo& info);
  Napi::Value postReceive(const Napi::CallbackInfo& info);
  Napi::Value postSend(const Napi::CallbackInfo& info);
  Napi::Value cork(const Napi::CallbackInfo& info);
  Napi::Value uncork(const Napi::CallbackInfo& info);
  template <rdma::Opcode opcode, auto post>
  Napi::Value postTransfer(const Napi::CallbackInfo& info);
  Napi::Value advertise(const Napi::CallbackInfo& info);
  Napi::Value revoke(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  Napi::Value flush(const Napi::CallbackInfo& info);
  Napi::Value retire(const Napi::CallbackInfo& info);

  rdma::Provider& provider(Napi::Value name);
  /** Throws a TypeError where the first argument is no connection's number. */
  Connection& connection(const Napi::CallbackInfo& info);
  std::uint32_t addConnection(std::uint32_t number, std::shared_ptr<rdma::QueuePair> queuePair, std::shared_ptr<ConnectionSink> sink,
                              const std::vector<rdma::ReceiveRequest>& receives);
  std::uint32_t nextNumber();
  /** After the first connection or listener has come, or the last has gone. */
  void holdEventLoop();

  /** A turn of iWARP, and the delivery of what came of it. Outside of JavaScript. */
  void turnIwarp() noexcept;
  /** `work` pushes events on this thread: they are delivered when it is done, and nobody has to be woken up for them. */
  template <typename Work>
  void workAndDeliver(Napi::Env env, const Work& work);

  // context_delivery.cc: the way of events.
  void deliverAll(Napi::Env env);
  /** False where nobody waits for the event any more. */
  bool encode(Napi::Env env, Event& event, Batch& batch, std::uint32_t* record, Napi::Array& notices);
  Napi::Value describe(Napi::Env env, Notice& notice);

  const napi_env env_;
  const std::shared_ptr<ArenaTable> arenas_ = std::make_shared<ArenaTable>();
  WakeUp wakeUp_;
  const std::shared_ptr<EventQueue> queue_;
  Napi::FunctionReference deliver_;
  /** Events on their way to JavaScript. */
  Napi::Reference<Napi::Uint32Array> records_;
  /** The answer of `advertise`: tag and address. */
  Napi::Reference<Napi::Float64Array> advertised_;
  Batch spare_;
  std::shared_ptr<rdma::Provider> iwarp_;
  std::shared_ptr<LoopWatch> iwarpWatch_;
  std::unique_ptr<Napi::AsyncContext> iwarpTurns_;
  /** In `workAndDeliver`. Read with the event queue's lock held, by whoever pushes. */
  std::atomic<bool> isDeliveryNear_ = false;
  std::shared_ptr<rdma::Provider> verbs_;
  std::unordered_map<std::uint32_t, Connection> connections_;
  std::unordered_map<std::uint32_t, std::unique_ptr<rdma::Listener>> listeners_;
  std::unordered_map<std::uint32_t, std::unique_ptr<rdma::ConnectionRequest>> requests_;
  std::uint32_t lastNumber_ = 0;
  bool holdsEventLoop_ = false;
};

template <typename Work>
void Context::workAndDeliver(Napi::Env env, const Work& work) {
  isDeliveryNear_ = true;
  work();
  isDeliveryNear_ = false;
  deliverAll(env);
}

}  // namespace iserfs::addon
