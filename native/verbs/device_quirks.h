/**
 * What particular devices' drivers do otherwise than the verbs say, each with its evidence. Nobody else asks for a vendor.
 */
#pragma once

#include <cstdint>

#include "verbs/library.h"

#if ISERFS_HAVE_VERBS

namespace iserfs::rdma::verbs {

struct DeviceQuirks {
  /** A memory window gives access to all of the region that it is bound to: it is bound to a region of exactly its bytes. */
  bool areWindowsUnbounded = false;
  /** A Send with Invalidate also revokes a region that was registered from user space. */
  bool canPeerInvalidateRegions = false;
  /** How a completion says that the message invalidated a tag. */
  unsigned int invalidationFlags = IBV_WC_WITH_INV;
  /** A Send with Invalidate cannot carry its data in the request. */
  bool canInlineInvalidation = true;
  /** A request that is under way when the connection ends completes with IBV_WC_LOC_QP_OP_ERR instead of being flushed. */
  bool areFlushesLocalErrors = false;
  /** A receive of no bytes needs an element all the same. */
  bool needsElementToReceive = false;
  /** The event of an established connection has the two read depths the wrong way round. */
  bool areReadDepthsSwapped = false;
};

inline DeviceQuirks quirksOf(const ibv_device_attr& attributes) noexcept {
  // Linux, drivers/infiniband/sw: rxe_param.h and siw.h.
  constexpr std::uint32_t rxe = 0xffffff;
  constexpr std::uint32_t siw = 0x626d74;
  DeviceQuirks quirks;
  if (attributes.vendor_id == rxe) {
    // Linux 6.1: check_rkey() compares the address with the bounds of the window's region only; observed, writing beyond a window.
    quirks.areWindowsUnbounded = true;
    // Linux 6.1: do_complete() writes the kernel's flag (4) where user space reads its own (8); observed. On a reliable connection
    // rxe has no other use for 4 (IBV_WC_IP_CSUM_OK).
    quirks.invalidationFlags = IBV_WC_WITH_INV | IBV_WC_IP_CSUM_OK;
  } else if (attributes.vendor_id == siw) {
    // Linux 6.1: siw_invalidate_stag() takes any tag of the protection domain; observed.
    quirks.canPeerInvalidateRegions = true;
    // Linux 6.1: siw_activate_tx_from_sq() refuses inline data but for plain Sends and Writes; observed.
    quirks.canInlineInvalidation = false;
    // Linux 6.1: siw_qp_sq_process() completes with this whatever the socket reports; observed when either end closes.
    quirks.areFlushesLocalErrors = true;
    // rdma-core 44: push_recv_wqe() of libsiw; observed.
    quirks.needsElementToReceive = true;
    // Linux 6.1: siw_cm_upcall() reports IW_CM_EVENT_CONNECT_REPLY so; observed.
    quirks.areReadDepthsSwapped = true;
  }
  return quirks;
}

}  // namespace iserfs::rdma::verbs

#endif
