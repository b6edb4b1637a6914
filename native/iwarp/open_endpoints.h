/** What a provider has open, so that its end is theirs: connections, listeners, and connections that nobody has answered yet. */
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace iserfs::rdma::iwarp {

class Endpoint {
 public:
  virtual ~Endpoint() = default;
  /** Ends at once, and tells so. Loop's thread. */
  virtual void abandon() noexcept = 0;
};

class OpenEndpoints {
 public:
  /** Any thread. */
  void add(const std::shared_ptr<Endpoint>& endpoint) {
    const std::lock_guard guard(lock_);
    endpoints_[endpoint.get()] = endpoint;
  }

  /** When it has ended. Any thread. */
  void remove(Endpoint* endpoint) noexcept {
    const std::lock_guard guard(lock_);
    endpoints_.erase(endpoint);
  }

  /** Loop's thread. */
  void abandonAll() noexcept {
    std::vector<std::shared_ptr<Endpoint>> all;
    {
      const std::lock_guard guard(lock_);
      for (const auto& [address, endpoint] : endpoints_) {
        if (auto open = endpoint.lock()) all.push_back(std::move(open));
      }
      endpoints_.clear();
    }
    for (const auto& endpoint : all) endpoint->abandon();
  }

 private:
  std::mutex lock_;
  std::unordered_map<Endpoint*, std::weak_ptr<Endpoint>> endpoints_;
};

}  // namespace iserfs::rdma::iwarp
