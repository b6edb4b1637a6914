#include "fuse-addon/connection.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <stdexcept>

#include "fuse-addon/records.h"

namespace iserfs::fuse_addon {

namespace {

/** Who reads what memory holds, one page after the other, asks for the next within this. */
constexpr std::chrono::microseconds nextHitWithin{20};
/** Hits of one turn: what else the event loop has to do waits for them. */
constexpr int hitsPerTurn = 8;
/** Turns that wait as usual after the next question was looked for in vain. */
constexpr int turnsAfterVain = 3;

}  // namespace

Connection::Connection(Napi::Env env, fuse::Descriptor device, Napi::Function deliver)
    : env_(env), channel_(std::make_shared<fuse::Channel>(std::move(device))), deliver_(deliver, "iserfs:fuse") {
  auto records = Napi::Float64Array::New(env, recordFields * recordCapacity);
  auto names = Napi::Uint8Array::New(env, nameStride * recordCapacity);
  auto scratch = Napi::Uint8Array::New(env, scratchLength);
  recordNumbers_ = records.Data();
  nameBytes_ = names.Data();
  scratchBytes_ = scratch.Data();
  records_ = Napi::Persistent(records);
  names_ = Napi::Persistent(names);
  scratch_ = Napi::Persistent(scratch);
}

void Connection::start(Napi::Env env) {
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) throw Napi::Error::New(env, "there is no event loop");
  handles_ = LoopHandles::open(loop, channel_->device(), [this] { onReadable(); }, [this] { onWake(); });
  const auto wake = [handles = handles_] { handles->wake(); };
  notifier_.emplace(channel_, wake);
  try {
    guard_.emplace(*channel_, wake);
  } catch (...) {
    close();
    throw;
  }
  const auto endOfEnvironment = [](napi_async_cleanup_hook_handle, void* data) { static_cast<Connection*>(data)->close(); };
  if (napi_add_async_cleanup_hook(env, endOfEnvironment, this, &cleanup_) != napi_ok) {
    close();
    throw Napi::Error::New(env, "the environment is ending");
  }
}

/**
 * What the kernel asked, as it is asked: everything that is there, in a few goes where it is much. Where looking for a second message
 * was in vain, only every 16th time looks again: that costs as much as to be called once more for one that comes after all.
 */
void Connection::onReadable() {
  guard_->countTurn();
  const auto self = shared_from_this();
  constexpr int rounds = 8;
  constexpr int turnsUntilLook = 15;
  const bool looksFurther = turnsWithoutLook_ == 0;
  const auto before = channel_->messagesRead();
  bool isForJavaScript = false;
  for (int round = 0; round < rounds; round++) {
    const auto end = channel_->read(looksFurther ? recordCapacity : 1);
    const bool isStarved = end == fuse::ReadEnd::starved;
    isForJavaScript = isForJavaScript || channel_->hasMessages();
    if (!deliverAll(isStarved)) return;
    if (!looksFurther || (end != fuse::ReadEnd::limit && !(isStarved && channel_->canRead()))) break;
  }
  const auto messages = channel_->messagesRead() - before;
  if (!looksFurther) turnsWithoutLook_--;
  else if (messages <= 1) turnsWithoutLook_ = turnsUntilLook;
  if (messages == 1 && !isForJavaScript && pending_.count() == 0) serveHits();
  pollAsNeeded();
}

/**
 * Memory alone gave the answer, and JavaScript owes none: the next question is looked for right here, for a moment, since to sleep and be
 * woken up takes longer than it is away. Who asks may need this processor to do so.
 */
void Connection::serveHits() {
  using Clock = std::chrono::steady_clock;
  if (turnsWithoutSpin_ > 0) {
    turnsWithoutSpin_--;
    return;
  }
  for (int hits = 0; hits < hitsPerTurn; hits++) {
    const auto until = Clock::now() + nextHitWithin;
    auto end = fuse::ReadEnd::empty;
    while ((end = channel_->read(1)) == fuse::ReadEnd::empty && Clock::now() < until) ::sched_yield();
    guard_->countTurn();
    if (end == fuse::ReadEnd::empty) turnsWithoutSpin_ = turnsAfterVain;
    if (end == fuse::ReadEnd::empty || end == fuse::ReadEnd::starved) return;
    if (end != fuse::ReadEnd::limit || channel_->hasMessages()) {
      deliverAll(false);
      return;
    }
  }
}

/** What other threads have left. */
void Connection::onWake() {
  guard_->countTurn();
  const auto self = shared_from_this();
  if (deliverAll(false)) pollAsNeeded();
}

bool Connection::deliverAll(bool isStarved) {
  const Napi::HandleScope scope(env_);
  bool tellsOfStarving = isStarved;
  if (channel_->isInitialised() && !hasToldInitialised_) {
    hasToldInitialised_ = true;
    if (!call(0, false, false, Napi::Env(env_).Undefined())) return false;
  }
  while (channel_->hasMessages() || tellsOfStarving) {
    channel_->take(batch_, recordCapacity);
    if (!call(encode(), tellsOfStarving, false, Napi::Env(env_).Undefined())) return false;
    tellsOfStarving = false;
  }
  if (const auto done = notifier_->takeDone(); !done.empty()) {
    auto ids = Napi::Uint32Array::New(env_, done.size());
    std::copy(done.begin(), done.end(), ids.Data());
    if (!call(0, false, false, ids)) return false;
  }
  if (!channel_->hasEnded() || hasToldEnd_) return true;
  hasToldEnd_ = true;
  return call(0, false, true, Napi::Env(env_).Undefined());
}

/** Records of the batch, which is empty afterwards. */
std::size_t Connection::encode() {
  std::size_t count = 0;
  for (const auto& message : batch_) {
    std::uint32_t token = 0;
    if (message.opcode == FUSE_INTERRUPT) {
      const auto found = pending_.find(message.offset);
      if (!found.has_value()) continue;
      token = *found;
    } else {
      token = pending_.add({.unique = message.unique, .opcode = message.opcode});
    }
    writeRecord(recordNumbers_ + count * recordFields, nameBytes_ + count * nameStride, token, message);
    count++;
  }
  batch_.clear();
  return count;
}

bool Connection::call(std::size_t count, bool isStarved, bool hasEnded, Napi::Value done) {
  const Napi::HandleScope scope(env_);
  const Napi::Env env(env_);
  deliver_.call({Napi::Number::New(env, static_cast<double>(count)), Napi::Boolean::New(env, isStarved), Napi::Boolean::New(env, hasEnded), done});
  return !isClosed_;
}

/** Not while nothing can be read, and not after the end, when the descriptor would be ready for ever. */
void Connection::pollAsNeeded() {
  if (isClosed_) return;
  const bool wanted = !channel_->hasEnded() && channel_->canRead();
  if (wanted == isPolling_) return;
  isPolling_ = wanted;
  handles_->poll(wanted);
}

/** Idempotent. Whoever still waits for an answer gets EIO: nobody else would give one, and a notice may wait for it. */
void Connection::close() {
  if (isClosed_) return;
  isClosed_ = true;
  guard_.reset();
  std::vector<fuse::Message> unread;
  channel_->take(unread, SIZE_MAX);
  for (const auto& message : unread) {
    if (message.opcode != FUSE_INTERRUPT) channel_->answer(message.unique, EIO);
  }
  for (const auto& request : pending_.takeAll()) channel_->answer(request.unique, EIO);
  notifier_.reset();
  handles_->close([self = shared_from_this()]() mutable {
    self->deliver_.release();
    self->records_.Reset();
    self->names_.Reset();
    self->scratch_.Reset();
    self->channel_->close();
    if (self->cleanup_ != nullptr) napi_remove_async_cleanup_hook(self->cleanup_);
    self.reset();
  });
}

}  // namespace iserfs::fuse_addon
