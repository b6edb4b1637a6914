/**
 * Member functions as functions of JavaScript: what C++ throws in them is thrown in JavaScript, and what is answered for an object
 * that is closed is said once for all of them. Thread: JavaScript.
 */
#pragma once

#include <napi.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <utility>

namespace iserfs::node_api {

/** What JavaScript throws in place of `error`. */
inline Napi::Error errorFrom(Napi::Env env, const std::exception& error) {
  if (dynamic_cast<const std::invalid_argument*>(&error) != nullptr) return Napi::TypeError::New(env, error.what());
  if (dynamic_cast<const std::out_of_range*>(&error) != nullptr) return Napi::RangeError::New(env, error.what());
  if (dynamic_cast<const std::length_error*>(&error) != nullptr) return Napi::RangeError::New(env, error.what());
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return Napi::RangeError::New(env, "out of memory");
  return Napi::Error::New(env, error.what());
}

using ErrorFrom = Napi::Error (*)(Napi::Env env, const std::exception& error);

/** What `body` returns. */
template <typename Body>
Napi::Value throwingInJavaScript(Napi::Env env, Body body, ErrorFrom from = &errorFrom) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw from(env, error);
  }
}

/** How calls of an object end that do not end well. */
struct CallEnds {
  /** The answer of every function once the object is closed; nobody asks where it never is. */
  Napi::Value (*whenClosed)(Napi::Env env) = [](Napi::Env env) { return env.Undefined(); };
  ErrorFrom errorFrom = &node_api::errorFrom;
};

/** An object for JavaScript, whose functions are methods of one object here. */
template <typename Find>
class Exports {
 public:
  /** `find()` is the object for the time of one call, or null where it is closed; each function keeps a copy, and with it what that holds. */
  Exports(Napi::Env env, Find find, CallEnds ends) : find_(std::move(find)), ends_(ends), object_(Napi::Object::New(env)) {}

  template <auto method>
  void add(const char* name) {
    const auto function = [find = find_, ends = ends_](const Napi::CallbackInfo& info) -> Napi::Value {
      auto* found = find();
      if (found == nullptr) return ends.whenClosed(info.Env());
      return throwingInJavaScript(info.Env(), [&] { return (found->*method)(info); }, ends.errorFrom);
    };
    object_.Set(name, Napi::Function::New(object_.Env(), function, name));
  }

  Napi::Object object() const { return object_; }

 private:
  Find find_;
  CallEnds ends_;
  Napi::Object object_;
};

}  // namespace iserfs::node_api
