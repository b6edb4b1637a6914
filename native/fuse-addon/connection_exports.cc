#include "fuse-addon/connection.h"
#include "fuse-addon/records.h"
#include "node-api/arguments.h"
#include "node-api/exports.h"

namespace iserfs::fuse_addon {

namespace {

using node_api::elementsFrom;
using node_api::maxWhole;
using node_api::unsignedFrom;
using node_api::wholeFrom;

std::uint64_t unsigned53From(Napi::Value value, const char* what) { return static_cast<std::uint64_t>(wholeFrom(value, what, 0, maxWhole)); }

std::uint32_t tokenFrom(Napi::Value value) { return unsignedFrom(value, "the token"); }

constexpr std::uint32_t maxSlots = 65536;

}  // namespace

Napi::Object Connection::exports(Napi::Env env) {
  const auto find = [self = shared_from_this()] { return self->isClosed_ ? nullptr : self.get(); };
  node_api::Exports functions(env, find, {.whenClosed = [](Napi::Env closed) { return closed.Undefined(); }});
  auto object = functions.object();
  object.Set("records", records_.Value());
  object.Set("names", names_.Value());
  object.Set("scratch", scratch_.Value());
  functions.add<&Connection::answer>("answer");
  functions.add<&Connection::answerOpen>("answerOpen");
  functions.add<&Connection::answerScratch>("answerScratch");
  functions.add<&Connection::answerData>("answerData");
  functions.add<&Connection::addSlot>("addSlot");
  functions.add<&Connection::takeSlot>("takeSlot");
  functions.add<&Connection::setSize>("setSize");
  functions.add<&Connection::drop>("drop");
  functions.add<&Connection::show>("show");
  functions.add<&Connection::hide>("hide");
  functions.add<&Connection::takeHits>("takeHits");
  functions.add<&Connection::hits>("hits");
  functions.add<&Connection::forgetInode>("forgetInode");
  functions.add<&Connection::forgetName>("forgetName");
  functions.add<&Connection::freeSlots>("freeSlots");
  functions.add<&Connection::figures>("figures");
  functions.add<&Connection::closeNow>("close");
  return object;
}

/** (token, result, slot): `-errno`, 0, or what the request is answered with; the slot is lent again, -1 for none. */
Napi::Value Connection::answer(const Napi::CallbackInfo& info) {
  const auto token = tokenFrom(info[0]);
  const auto result = wholeFrom(info[1], "the result", -4095, maxWhole);
  const auto slot = wholeFrom(info[2], "the slot", -1, maxSlots);
  const auto request = pending_.take(token);
  if (slot >= 0) giveBack(static_cast<std::uint32_t>(slot));
  if (!request.has_value()) return info.Env().Undefined();
  if (result < 0) {
    channel_->answer(request->unique, static_cast<int>(-result));
  } else if (request->opcode == FUSE_WRITE) {
    fuse_write_out fields{.size = static_cast<std::uint32_t>(std::min<double>(result, fuse::maxTransfer)), .padding = 0};
    const iovec body{.iov_base = &fields, .iov_len = sizeof fields};
    channel_->answer(request->unique, 0, {&body, 1});
  } else if (request->opcode == FUSE_LSEEK) {
    fuse_lseek_out fields{.offset = static_cast<std::uint64_t>(result)};
    const iovec body{.iov_base = &fields, .iov_len = sizeof fields};
    channel_->answer(request->unique, 0, {&body, 1});
  } else {
    channel_->answer(request->unique, 0);
  }
  return info.Env().Undefined();
}

/** (token, handle, flags) */
Napi::Value Connection::answerOpen(const Napi::CallbackInfo& info) {
  fuse_open_out fields{};
  fields.fh = unsigned53From(info[1], "the handle");
  fields.open_flags = unsignedFrom(info[2], "the flags");
  const iovec body{.iov_base = &fields, .iov_len = sizeof fields};
  if (const auto request = pending_.take(tokenFrom(info[0]))) channel_->answer(request->unique, 0, {&body, 1});
  return info.Env().Undefined();
}

/** (token, length): with the first bytes of `scratch`. */
Napi::Value Connection::answerScratch(const Napi::CallbackInfo& info) {
  const iovec body{.iov_base = scratchBytes_, .iov_len = unsignedFrom(info[1], "the length", scratchLength)};
  if (const auto request = pending_.take(tokenFrom(info[0]))) channel_->answer(request->unique, 0, {&body, 1});
  return info.Env().Undefined();
}

/** (token, bytes or an array of them): the kernel has copied them when it returns. One needs no array, which costs more than all else here. */
Napi::Value Connection::answerData(const Napi::CallbackInfo& info) {
  const auto pieceFrom = [](Napi::Value value) -> iovec {
    const auto bytes = elementsFrom<std::byte>(value, "the data");
    return {.iov_base = bytes.data(), .iov_len = bytes.size()};
  };
  const auto token = tokenFrom(info[0]);
  const auto answerWith = [this, token](std::span<const iovec> pieces) {
    if (const auto request = pending_.take(token)) channel_->answer(request->unique, 0, pieces);
  };
  if (!info[1].IsArray()) {
    const auto piece = pieceFrom(info[1]);
    answerWith({&piece, 1});
    return info.Env().Undefined();
  }
  const auto segments = info[1].As<Napi::Array>();
  std::vector<iovec> pieces(segments.Length());
  for (std::uint32_t i = 0; i < pieces.size(); i++) pieces[i] = pieceFrom(segments.Get(i));
  answerWith(pieces);
  return info.Env().Undefined();
}

/** (number, bytes): lends a slot, until it comes with a write or from `takeSlot`. Its owner keeps the memory meanwhile. */
Napi::Value Connection::addSlot(const Napi::CallbackInfo& info) {
  const auto number = unsignedFrom(info[0], "the slot", maxSlots);
  const auto bytes = elementsFrom<std::byte>(info[1], "the memory");
  if (bytes.size() != fuse::maxTransfer) throw Napi::RangeError::New(info.Env(), "a slot is of 1 MiB");
  if (number >= slots_.size()) slots_.resize(number + 1, nullptr);
  slots_[number] = bytes.data();
  giveBack(number);
  return info.Env().Undefined();
}

void Connection::giveBack(std::uint32_t slot) {
  if (slot >= slots_.size() || slots_[slot] == nullptr) throw std::invalid_argument("no such slot");
  channel_->addSlot({.number = slot, .data = slots_[slot]});
  pollAsNeeded();
}

Napi::Value Connection::takeSlot(const Napi::CallbackInfo& info) {
  const auto slot = channel_->takeSlot();
  if (slot.has_value()) slots_[*slot] = nullptr;
  return Napi::Number::New(info.Env(), slot.has_value() ? static_cast<double>(*slot) : -1);
}

/** (inode, size) */
Napi::Value Connection::setSize(const Napi::CallbackInfo& info) {
  channel_->pages().setSize(unsigned53From(info[0], "the inode"), unsigned53From(info[1], "the size"));
  return info.Env().Undefined();
}

/** (inode) */
Napi::Value Connection::drop(const Napi::CallbackInfo& info) {
  channel_->pages().drop(unsigned53From(info[0], "the inode"));
  return info.Env().Undefined();
}

/** (inode, offset, bytes) */
Napi::Value Connection::show(const Napi::CallbackInfo& info) {
  const auto offset = unsigned53From(info[1], "the offset");
  if (offset % fuse::pageLength != 0) throw Napi::RangeError::New(info.Env(), "the offset is within a page");
  channel_->pages().show(unsigned53From(info[0], "the inode"), offset, elementsFrom<std::byte>(info[2], "the pages"));
  return info.Env().Undefined();
}

/** (inode, offset, length) */
Napi::Value Connection::hide(const Napi::CallbackInfo& info) {
  channel_->pages().hide(unsigned53From(info[0], "the inode"), unsigned53From(info[1], "the offset"), unsigned53From(info[2], "the length"));
  return info.Env().Undefined();
}

/** (inode, offsets): how many there are. */
Napi::Value Connection::takeHits(const Napi::CallbackInfo& info) {
  const auto inode = unsigned53From(info[0], "the inode");
  const auto count = channel_->pages().takeHits(inode, elementsFrom<double>(info[1], "the offsets"));
  return Napi::Number::New(info.Env(), static_cast<double>(count));
}

/** (inode) */
Napi::Value Connection::hits(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(channel_->pages().hits(unsigned53From(info[0], "the inode"))));
}

/** (inode, offset, length, id): an offset of -1 for the attributes alone, a length of 0 for all; the id comes back as `done`, but 0. */
Napi::Value Connection::forgetInode(const Napi::CallbackInfo& info) {
  notifier_->tell({.id = unsignedFrom(info[3], "the id"),
                   .inode = unsigned53From(info[0], "the inode"),
                   .offset = static_cast<std::int64_t>(wholeFrom(info[1], "the offset", -1, maxWhole)),
                   .length = static_cast<std::int64_t>(wholeFrom(info[2], "the length", 0, maxWhole)),
                   .name = {}});
  return info.Env().Undefined();
}

/** (directory, name) */
Napi::Value Connection::forgetName(const Napi::CallbackInfo& info) {
  notifier_->tell({.inode = unsigned53From(info[0], "the inode"), .name = node_api::textFrom(info[1], "the name")});
  return info.Env().Undefined();
}

/** Slots that wait for a write. */
Napi::Value Connection::freeSlots(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(channel_->freeSlots()));
}

Napi::Value Connection::figures(const Napi::CallbackInfo& info) {
  auto object = Napi::Object::New(info.Env());
  object.Set("isInitialised", channel_->isInitialised());
  object.Set("mixesDirectIo", channel_->mixesDirectIo());
  object.Set("unanswered", static_cast<double>(pending_.count()));
  object.Set("messagesRead", static_cast<double>(channel_->messagesRead()));
  object.Set("readByGuard", static_cast<double>(guard_->messagesRead()));
  return object;
}

Napi::Value Connection::closeNow(const Napi::CallbackInfo& info) {
  close();
  return info.Env().Undefined();
}

}  // namespace iserfs::fuse_addon
