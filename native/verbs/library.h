/**
 * libibverbs and librdmacm, found at run time, so that the addon loads where they are not installed. Only what `native/verbs` calls
 * is here. The headers' inline functions (post, poll, arm, memory windows) go through the device's own table and need no entry.
 *
 * Everything in this folder is compiled only where the headers are (`ISERFS_HAVE_VERBS`); elsewhere `verbs_provider.cc` says so.
 */
#pragma once

#if !defined(ISERFS_WITHOUT_VERBS) && __has_include(<infiniband/verbs.h>) && __has_include(<rdma/rdma_cma.h>)
#define ISERFS_HAVE_VERBS 1
#else
#define ISERFS_HAVE_VERBS 0
#endif

#if ISERFS_HAVE_VERBS

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

// The headers hide these two functions behind macros that would link against the library.
#undef ibv_query_port
#undef ibv_reg_mr

namespace iserfs::rdma::verbs {

/** Entry points, by their own names without the prefix. */
struct Library {
  decltype(&::ibv_fork_init) forkInit;
  decltype(&::ibv_get_device_list) getDeviceList;
  decltype(&::ibv_free_device_list) freeDeviceList;
  decltype(&::ibv_open_device) openDevice;
  decltype(&::ibv_close_device) closeDevice;
  decltype(&::ibv_query_device) queryDevice;
  decltype(&::ibv_query_port) queryPort;
  decltype(&::ibv_alloc_pd) allocPd;
  decltype(&::ibv_dealloc_pd) deallocPd;
  decltype(&::ibv_reg_mr) regMr;
  decltype(&::ibv_dereg_mr) deregMr;
  decltype(&::ibv_create_comp_channel) createCompChannel;
  decltype(&::ibv_destroy_comp_channel) destroyCompChannel;
  decltype(&::ibv_create_cq) createCq;
  decltype(&::ibv_destroy_cq) destroyCq;
  decltype(&::ibv_get_cq_event) getCqEvent;
  decltype(&::ibv_ack_cq_events) ackCqEvents;
  decltype(&::ibv_get_async_event) getAsyncEvent;
  decltype(&::ibv_ack_async_event) ackAsyncEvent;
  decltype(&::ibv_modify_qp) modifyQp;
  decltype(&::ibv_destroy_qp) destroyQp;
  decltype(&::ibv_query_qp) queryQp;
  decltype(&::ibv_wc_status_str) wcStatusStr;

  decltype(&::rdma_create_event_channel) createEventChannel;
  decltype(&::rdma_destroy_event_channel) destroyEventChannel;
  decltype(&::rdma_create_id) createId;
  decltype(&::rdma_destroy_id) destroyId;
  decltype(&::rdma_bind_addr) bindAddr;
  decltype(&::rdma_resolve_addr) resolveAddr;
  decltype(&::rdma_resolve_route) resolveRoute;
  decltype(&::rdma_create_qp) createQp;
  decltype(&::rdma_connect) connect;
  decltype(&::rdma_listen) listen;
  decltype(&::rdma_accept) accept;
  decltype(&::rdma_reject) reject;
  decltype(&::rdma_disconnect) disconnect;
  decltype(&::rdma_notify) notify;
  decltype(&::rdma_get_cm_event) getCmEvent;
  decltype(&::rdma_ack_cm_event) ackCmEvent;

  /**
   * Loads them once per process and keeps them; makes memory that will be registered safe from fork() before anything is. Any
   * thread. Throws ProviderError `unsupported` with the loader's reason; a later call tries again.
   */
  static const Library& get();

 private:
  Library();
};

}  // namespace iserfs::rdma::verbs

#endif
