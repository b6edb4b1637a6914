/** Listening, and the requests that come of it until they are answered. */
#pragma once

#include <memory>
#include <string>

#include "verbs/connection.h"
#include "verbs/engine.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

/** Throws ProviderError. Owner's thread. */
std::unique_ptr<Listener> makeListener(const std::shared_ptr<Engine>& engine, const Address& at, std::shared_ptr<ListenerEvents> events);

}  // namespace iserfs::rdma::verbs

#endif
