/** Arguments from JavaScript, checked: nothing is wrapped around, cut off or taken for another type. Throws Napi::Error. Thread: JavaScript. */
#pragma once

#include <napi.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace iserfs::node_api {

/** 2^53 - 1: up to here JavaScript has every integer. */
constexpr double maxWhole = 9007199254740991.0;

/** `what` names the argument in words. */
[[noreturn]] inline void refuse(Napi::Value value, const char* what, const char* wanted) {
  throw Napi::TypeError::New(value.Env(), std::string(what) + " must be " + wanted);
}

/** An integer from `least` to `most`. */
inline double wholeFrom(Napi::Value value, const char* what, double least, double most) {
  double number = 0;
  if (napi_get_value_double(value.Env(), value, &number) != napi_ok) refuse(value, what, "a number");
  if (!(number >= least && number <= most) || number != std::floor(number)) {
    throw Napi::RangeError::New(value.Env(), std::string(what) + " is out of range");
  }
  return number;
}

/** An integer from 0 to `most`. */
inline std::uint32_t unsignedFrom(Napi::Value value, const char* what, std::uint32_t most = UINT32_MAX) {
  return static_cast<std::uint32_t>(wholeFrom(value, what, 0, most));
}

inline bool booleanFrom(Napi::Value value, const char* what) {
  if (!value.IsBoolean()) refuse(value, what, "true or false");
  return value.As<Napi::Boolean>().Value();
}

inline std::string textFrom(Napi::Value value, const char* what) {
  if (!value.IsString()) refuse(value, what, "a string");
  return value.As<Napi::String>().Utf8Value();
}

struct ArrayKind {
  napi_typedarray_type type;
  const char* name;
};

/** The typed array with elements of a type. */
template <typename Element>
constexpr ArrayKind arrayOf() = delete;
template <>
constexpr ArrayKind arrayOf<std::byte>() { return {napi_uint8_array, "a Uint8Array"}; }
template <>
constexpr ArrayKind arrayOf<std::uint32_t>() { return {napi_uint32_array, "a Uint32Array"}; }
template <>
constexpr ArrayKind arrayOf<double>() { return {napi_float64_array, "a Float64Array"}; }

/** Where a typed array has its elements, until JavaScript runs again. */
template <typename Element>
std::span<Element> elementsFrom(Napi::Value value, const char* what) {
  constexpr auto wanted = arrayOf<Element>();
  napi_typedarray_type type{};
  std::size_t count = 0;
  void* data = nullptr;
  const auto status = napi_get_typedarray_info(value.Env(), value, &type, &count, &data, nullptr, nullptr);
  if (status != napi_ok || type != wanted.type) refuse(value, what, wanted.name);
  return {static_cast<Element*>(data), count};
}

}  // namespace iserfs::node_api
