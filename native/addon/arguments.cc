#include "addon/arguments.h"

#include <cmath>
#include <cstring>

namespace iserfs::addon {

namespace {

/** As the addon has it, in front of `privateData` of the CM there is no more room than this. */
constexpr std::size_t mostPrivateData = 196;
/** Words of a receive in `receives`: its number, and a segment. */
constexpr std::size_t receiveWords = 4;

[[noreturn]] void refuse(Napi::Value value, const char* what, const char* wanted) {
  throw Napi::TypeError::New(value.Env(), std::string(what) + " must be " + wanted);
}

}  // namespace

std::uint32_t unsignedFrom(Napi::Value value, const char* what, std::uint32_t most) {
  double number = 0;
  if (napi_get_value_double(value.Env(), value, &number) != napi_ok) refuse(value, what, "a number");
  if (!(number >= 0 && number <= most) || number != std::floor(number)) {
    throw Napi::RangeError::New(value.Env(), std::string(what) + " is out of range");
  }
  return static_cast<std::uint32_t>(number);
}

bool booleanFrom(Napi::Value value, const char* what) {
  if (!value.IsBoolean()) refuse(value, what, "true or false");
  return value.As<Napi::Boolean>().Value();
}

std::string textFrom(Napi::Value value, const char* what) {
  if (!value.IsString()) refuse(value, what, "a string");
  return value.As<Napi::String>().Utf8Value();
}

std::uint64_t unsigned64From(Napi::Value value, const char* what) {
  std::uint64_t number = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(value.Env(), value, &number, &lossless) != napi_ok) refuse(value, what, "a bigint");
  if (!lossless) throw Napi::RangeError::New(value.Env(), std::string(what) + " is out of range");
  return number;
}

std::vector<std::byte> bytesFrom(Napi::Value value, const char* what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) refuse(value, what, "a Uint8Array");
  const auto array = value.As<Napi::Uint8Array>();
  std::vector<std::byte> bytes(array.ByteLength());
  if (!bytes.empty()) std::memcpy(bytes.data(), array.Data(), bytes.size());
  return bytes;
}

rdma::Segment segmentFrom(const Napi::CallbackInfo& info, std::size_t first, const ArenaTable& arenas) {
  const auto arena = unsignedFrom(info[first], "the arena");
  const auto offset = unsignedFrom(info[first + 1], "the offset");
  const auto length = unsignedFrom(info[first + 2], "the length");
  return arenas.segment(arena, offset, length);
}

rdma::QueuePairOptions optionsFrom(Napi::Value value, const ArenaTable& arenas) {
  if (!value.IsObject()) refuse(value, "the options", "an object");
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
    auto bytes = bytesFrom(object.Get(name), name);
    if (bytes.size() > mostPrivateData) throw Napi::RangeError::New(value.Env(), std::string(name) + " is longer than 196 bytes");
    return bytes;
  };
  options.privateData = privateData("privateData");
  const char* const instead = "privateDataWithoutInvalidation";
  if (!object.Get(instead).IsUndefined()) options.privateDataWithoutInvalidation = privateData(instead);
  const auto receives = object.Get("receives");
  if (!receives.IsTypedArray() || receives.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    refuse(receives, "receives", "a Uint32Array");
  }
  const auto words = receives.As<Napi::Uint32Array>();
  if (words.ElementLength() % receiveWords != 0) refuse(receives, "receives", "of four words each");
  if (words.ElementLength() / receiveWords > options.receiveDepth) throw Napi::RangeError::New(value.Env(), "more receives than receiveDepth");
  for (std::size_t at = 0; at < words.ElementLength(); at += receiveWords) {
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
