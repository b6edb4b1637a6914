/**
 * What libibverbs, librdmacm and the kernel say when something goes wrong, in the words and codes of provider.h. Pure functions.
 */
#pragma once

#include <cstdint>
#include <string>
#include <system_error>

#include "provider.h"
#include "verbs/library.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

/** Text of an errno value (positive or negative). */
std::string errorText(int error);

/** The errno value behind what `ibv_post_send` or `ibv_post_recv` returned: some drivers return -1 and set errno. */
int postError(int returned) noexcept;

/** The device found a fault with what the peer asked, and says no more. */
Failure violation();
/** `rdma_resolve_addr`, `rdma_resolve_route`, and their error events. */
Failure resolutionFailure(int error);
/** `rdma_connect` returned an error at once. */
Failure connectFailure(int error);
/** RDMA_CM_EVENT_REJECTED; `status` is an InfiniBand reason, or on iWARP a negative errno. */
Failure rejectionFailure(int status, bool iwarp);
/** RDMA_CM_EVENT_UNREACHABLE and RDMA_CM_EVENT_CONNECT_ERROR. */
Failure connectionEventFailure(int status);
/** Something of the device's could not be made: `what` is its name. ENOMEM is said to be what it mostly is, locked memory. */
Failure deviceFailure(const std::string& what, int error);
/** The same as an exception, with the same text. */
std::system_error deviceError(const std::string& what, int error);
/** Memory could not be registered; says when it is RLIMIT_MEMLOCK and what that is. `length` in bytes. */
std::system_error registrationError(std::size_t length, int error);
/** `rdma_bind_addr` and `rdma_listen`. */
Failure listenFailure(int error);

enum class WorkKind : std::uint8_t { send, receive, bind };
/** What a completion with this error means for the connection. Not for IBV_WC_WR_FLUSH_ERR, which has no cause of its own. */
Failure completionFailure(const Library& library, WorkKind kind, ibv_wc_status status);

}  // namespace iserfs::rdma::verbs

#endif
