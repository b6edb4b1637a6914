/** Loading of libibverbs and librdmacm: see library.h. It knows names of functions and nothing of what they do. */
#include "verbs/library.h"

#if ISERFS_HAVE_VERBS

#include <dlfcn.h>

#include <string>

#include "provider.h"

namespace iserfs::rdma::verbs {

namespace {

ProviderError unsupported(std::string text) { return ProviderError({FailureCode::unsupported, std::move(text)}); }

std::string loaderReason(const char* otherwise) {
  const char* reason = ::dlerror();
  return reason == nullptr ? otherwise : reason;
}

/** Never unloaded: the libraries register process-wide handlers of their own. */
void* load(const char* name) {
  void* handle = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw unsupported("RDMA verbs need the library " + std::string(name) + ": " + loaderReason("it cannot be loaded"));
  return handle;
}

template <typename Function>
void find(void* handle, const char* name, Function& function) {
  void* address = ::dlsym(handle, name);
  if (address == nullptr) throw unsupported("the RDMA libraries are too old: " + loaderReason(name));
  function = reinterpret_cast<Function>(address);
}

}  // namespace

const Library& Library::get() {
  static const Library library;
  return library;
}

Library::Library() {
  void* ibverbs = load("libibverbs.so.1");
  find(ibverbs, "ibv_fork_init", forkInit);
  find(ibverbs, "ibv_get_device_list", getDeviceList);
  find(ibverbs, "ibv_free_device_list", freeDeviceList);
  find(ibverbs, "ibv_open_device", openDevice);
  find(ibverbs, "ibv_close_device", closeDevice);
  find(ibverbs, "ibv_query_device", queryDevice);
  find(ibverbs, "ibv_query_port", queryPort);
  find(ibverbs, "ibv_alloc_pd", allocPd);
  find(ibverbs, "ibv_dealloc_pd", deallocPd);
  find(ibverbs, "ibv_reg_mr", regMr);
  find(ibverbs, "ibv_dereg_mr", deregMr);
  find(ibverbs, "ibv_create_comp_channel", createCompChannel);
  find(ibverbs, "ibv_destroy_comp_channel", destroyCompChannel);
  find(ibverbs, "ibv_create_cq", createCq);
  find(ibverbs, "ibv_destroy_cq", destroyCq);
  find(ibverbs, "ibv_get_cq_event", getCqEvent);
  find(ibverbs, "ibv_ack_cq_events", ackCqEvents);
  find(ibverbs, "ibv_get_async_event", getAsyncEvent);
  find(ibverbs, "ibv_ack_async_event", ackAsyncEvent);
  find(ibverbs, "ibv_modify_qp", modifyQp);
  find(ibverbs, "ibv_destroy_qp", destroyQp);
  find(ibverbs, "ibv_query_qp", queryQp);
  find(ibverbs, "ibv_wc_status_str", wcStatusStr);

  void* rdmacm = load("librdmacm.so.1");
  find(rdmacm, "rdma_create_event_channel", createEventChannel);
  find(rdmacm, "rdma_destroy_event_channel", destroyEventChannel);
  find(rdmacm, "rdma_create_id", createId);
  find(rdmacm, "rdma_destroy_id", destroyId);
  find(rdmacm, "rdma_bind_addr", bindAddr);
  find(rdmacm, "rdma_resolve_addr", resolveAddr);
  find(rdmacm, "rdma_resolve_route", resolveRoute);
  find(rdmacm, "rdma_create_qp", createQp);
  find(rdmacm, "rdma_connect", connect);
  find(rdmacm, "rdma_listen", listen);
  find(rdmacm, "rdma_accept", accept);
  find(rdmacm, "rdma_reject", reject);
  find(rdmacm, "rdma_disconnect", disconnect);
  find(rdmacm, "rdma_notify", notify);
  find(rdmacm, "rdma_get_cm_event", getCmEvent);
  find(rdmacm, "rdma_ack_cm_event", ackCmEvent);

  // Fails only where memory has been registered before by someone else in this process, who then answers for fork().
  static_cast<void>(forkInit());
}

}  // namespace iserfs::rdma::verbs

#endif
