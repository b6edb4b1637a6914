#include "addon/arguments.h"

#include <cstring>
#include <string>
#include <vector>

namespace iserfs::addon {

namespace {

/** As the addon has it, in front of `privateData` of the CM there is no more room than this. */
constexpr std::size_t mostPrivateData = 196;
/** Words of a receive in `receives`: its number, and a segment. */
constexpr std::size_t receiveWords = 4;

}  // namespace

std::uint64_t unsigned64From(Napi::Value value, const char* what) {
  std::uint64_t number = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(value.Env(), value, &number, &lossless) != napi_ok) node_api::refuse(value, what, "a bigint");
  if (!lossless) throw Napi::RangeError::New(value.Env(), std::string(what) + " is out of range");
  return number;
}

rdma::Segment segmentFrom(const Napi::CallbackInfo& info, std::size_t first, const ArenaTable& arenas) {
  const auto arena = unsignedFrom(info[first], "the arena");
  const auto offset = unsignedFrom(info[first + 1], "the offset");
  const auto length = unsignedFrom(info[first + 2], "the length");
  return arenas.segment(arena, offset, length);
}

rdma::QueuePairOptions optionsFrom(Napi::Value value, const ArenaTable& arenas) {
  if (!value.IsObject()) node_api::refuse(value, "the options", "an object");
  const auto object = value.As<Napi::Object>();
  const auto depth = [&object](const char* name) { return unsignedFrom(object.Get(name), name, 1U << 20); };
  const auto reads = [&object](const char* name) { return static_cast<std::uint16_t>(unsignedFrom(object.Get(name), name, UINT16_MAX)); };
  rdma::QueuePairOptions options;
  options.sendDepth = depth("sendDepth");
  options.receiveDepth = depth("receiveDepth");
  options.advertisementDepth = depth("advertisementDepth");
  options.ird = reads("ird");
  options.ord = reads("ord");
  options.crc = booleanFrom(object.Get("crc"), "crc");
  const auto privateData = [&object, &value](const char* name) {
    const auto bytes = elementsFrom<std::byte>(object.Get(name), name);
    if (bytes.size() > mostPrivateData) throw Napi::RangeError::New(value.Env(), std::string(name) + " is longer than 196 bytes");
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  options.privateData = privateData("privateData");
  const char* const instead = "privateDataWithoutInvalidation";
  if (!object.Get(instead).IsUndefined()) options.privateDataWithoutInvalidation = privateData(instead);
  const auto receives = object.Get("receives");
  const auto words = elementsFrom<std::uint32_t>(receives, "receives");
  if (words.size() % receiveWords != 0) node_api::refuse(receives, "receives", "of four words each");
  if (words.size() / receiveWords > options.receiveDepth) throw Napi::RangeError::New(value.Env(), "more receives than receiveDepth");
  for (std::size_t at = 0; at < words.size(); at += receiveWords) {
    options.receives.push_back({.workRequestId = words[at], .segment = arenas.segment(words[at + 1], words[at + 2], words[at + 3])});
  }
  return options;
}

Napi::Uint8Array bytesTo(Napi::Env env, std::span<const std::byte> bytes) {
  auto array = Napi::Uint8Array::New(env, bytes.size());
  if (!bytes.empty()) std::memcpy(array.Data(), bytes.data(), bytes.size());
  return array;
}

}  // namespace iserfs::addon
