/**
 * The passive side until somebody decides: a listening socket, and connections whose MPA request is being read or waits for an answer.
 * Their number is bounded, and so is the time that a request may take; who sends none costs nothing more than that.
 */
#pragma once

#include <functional>
#include <memory>

#include "open_endpoints.h"
#include "provider.h"
#include "queue_pair.h"
#include "socket_loop.h"

namespace iserfs::rdma::iwarp {

/** Throws `ProviderError`. Owner's thread. */
std::unique_ptr<Listener> listen(const std::shared_ptr<SocketLoop>& loop, const std::shared_ptr<OpenEndpoints>& endpoints,
                                 const Address& at, std::shared_ptr<ListenerEvents> events);

}  // namespace iserfs::rdma::iwarp
