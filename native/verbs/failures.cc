/** Tables of failures: see failures.h. */
#include "verbs/failures.h"

#if ISERFS_HAVE_VERBS

#include <sys/resource.h>

#include <cerrno>
#include <cstdlib>

namespace iserfs::rdma::verbs {

namespace {

// Reasons of an InfiniBand REJ message (InfiniBand Architecture Specification, volume 1, communication management).
constexpr int rejectNoResources = 4;
constexpr int rejectTimeout = 5;
constexpr int rejectInvalidServiceId = 8;
constexpr int rejectConsumerDefined = 28;

/** ` (RLIMIT_MEMLOCK is 8192 KiB; …)`, or nothing where there is no limit. */
std::string lockedMemoryLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return ": this process may lock " + std::to_string(limit.rlim_cur / 1024) + " KiB (RLIMIT_MEMLOCK; see ulimit -l, or LimitMEMLOCK of systemd)";
}

}  // namespace

std::string errorText(int error) { return std::generic_category().message(std::abs(error)); }

Failure violation() { return {FailureCode::peerViolation, "the peer broke the protocol, or reached for memory that it was not given"}; }

int postError(int returned) noexcept {
  if (returned != -1) return std::abs(returned);
  return errno == 0 ? EIO : errno;
}

Failure resolutionFailure(int error) {
  switch (std::abs(error)) {
    case ENODEV:
    case EADDRNOTAVAIL:
    // Of a device that is bound to the loopback interface's address, which leads nowhere.
    case EINVAL:
      return {FailureCode::unreachable, "no RDMA device routes to that address"};
    case ETIMEDOUT:
      return {FailureCode::timedOut, "nothing answers for that address on the RDMA network"};
    case EAFNOSUPPORT:
      return {FailureCode::badAddress, "not an address that RDMA can connect to: " + errorText(error)};
    case ENOMEM:
    case EMFILE:
      return {FailureCode::resources, "the address cannot be resolved: " + errorText(error)};
    default:
      return {FailureCode::unreachable, "no RDMA route to that address: " + errorText(error)};
  }
}

Failure connectFailure(int error) {
  switch (std::abs(error)) {
    case ECONNREFUSED:
      return {FailureCode::refused, "connection refused: nobody listens there"};
    case ETIMEDOUT:
      return {FailureCode::timedOut, "no answer"};
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EADDRNOTAVAIL:
      return {FailureCode::unreachable, errorText(error)};
    case ECONNRESET:
    case EPIPE:
      return {FailureCode::reset, "the connection broke while it was made"};
    case EINVAL:
      return {FailureCode::unsupported, "the RDMA device does not take these connection parameters (private data, read depths)"};
    default:
      return {FailureCode::resources, "the connection cannot be made: " + errorText(error)};
  }
}

Failure rejectionFailure(int status, bool iwarp) {
  if (iwarp) {
    if (std::abs(status) == ECONNREFUSED) return connectFailure(status);
    return {FailureCode::rejected, "the listener rejected the connection"};
  }
  switch (status) {
    case rejectInvalidServiceId:
      return {FailureCode::refused, "connection refused: nobody listens there"};
    case rejectConsumerDefined:
      return {FailureCode::rejected, "the listener rejected the connection"};
    case rejectNoResources:
      return {FailureCode::rejected, "the peer has no resources for the connection"};
    case rejectTimeout:
      return {FailureCode::timedOut, "the peer gave up waiting for the connection"};
    default:
      return {FailureCode::rejected, "the peer rejected the connection (reason " + std::to_string(status) + ")"};
  }
}

Failure connectionEventFailure(int status) {
  if (status == 0 || std::abs(status) == ETIMEDOUT) return {FailureCode::timedOut, "no answer"};
  return connectFailure(status);
}

Failure deviceFailure(const std::string& what, int error) {
  const std::string limit = std::abs(error) == ENOMEM ? lockedMemoryLimit() : "";
  return {FailureCode::resources, "the RDMA device gives no " + what + " (" + errorText(error) + ")" + limit};
}

std::system_error deviceError(const std::string& what, int error) {
  return {std::abs(error), std::generic_category(), deviceFailure(what, error).text};
}

std::system_error registrationError(std::size_t length, int error) {
  const std::string limit = std::abs(error) == ENOMEM ? lockedMemoryLimit() : "";
  return {std::abs(error), std::generic_category(), std::to_string(length) + " bytes of memory cannot be registered with the RDMA device" + limit};
}

Failure listenFailure(int error) {
  switch (std::abs(error)) {
    case ENODEV:
      return {FailureCode::badAddress, "no RDMA device has that address"};
    case EADDRNOTAVAIL:
      return {FailureCode::badAddress, "not an address of this machine"};
    case EADDRINUSE:
      return {FailureCode::badAddress, "the port is taken (on iWARP devices it is the TCP port of the same number)"};
    case EACCES:
      return {FailureCode::badAddress, "ports below 1024 need privileges"};
    case ENOMEM:
    case EMFILE:
      return {FailureCode::resources, "cannot listen: " + errorText(error)};
    default:
      return {FailureCode::badAddress, "cannot listen: " + errorText(error)};
  }
}

Failure completionFailure(const Library& library, WorkKind kind, ibv_wc_status status) {
  const auto named = [&](const char* text) { return std::string(text) + " (" + library.wcStatusStr(status) + ")"; };
  if (kind == WorkKind::bind) return {FailureCode::resources, named("the RDMA device did not bind a memory window")};
  if (kind == WorkKind::receive) {
    switch (status) {
      case IBV_WC_LOC_LEN_ERR:
        return {FailureCode::peerViolation, named("a message was longer than the buffer for it")};
      case IBV_WC_REM_ACCESS_ERR:
        return {FailureCode::peerViolation, named("the peer touched memory that it was not given")};
      case IBV_WC_REM_INV_REQ_ERR:
      case IBV_WC_REM_OP_ERR:
      case IBV_WC_LOC_QP_OP_ERR:
        return {FailureCode::peerViolation, named("the peer asked for what it may not")};
      default:
        return {FailureCode::reset, named("receiving failed")};
    }
  }
  switch (status) {
    case IBV_WC_REM_ACCESS_ERR:
      return {FailureCode::terminated, named("the peer refused access to its memory")};
    case IBV_WC_REM_INV_REQ_ERR:
    case IBV_WC_REM_OP_ERR:
    case IBV_WC_REM_ABORT_ERR:
      return {FailureCode::terminated, named("the peer refused a request")};
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
      return {FailureCode::reset, named("the peer does not answer any more")};
    case IBV_WC_RNR_RETRY_EXC_ERR:
      return {FailureCode::reset, named("the peer is not ready to receive")};
    case IBV_WC_BAD_RESP_ERR:
      return {FailureCode::peerViolation, named("the peer's answer breaks the protocol")};
    case IBV_WC_LOC_LEN_ERR:
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_QP_OP_ERR:
    case IBV_WC_LOC_ACCESS_ERR:
      return {FailureCode::resources, named("the RDMA device refused a request")};
    default:
      return {FailureCode::reset, named("the connection broke")};
  }
}

}  // namespace iserfs::rdma::verbs

#endif
