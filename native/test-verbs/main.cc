/**
 * Tests of the verbs provider against real (kernel) RDMA devices, both ends in this process. They need a device; the address of one
 * is in ISERFS_VERBS_ADDRESS. Without that, only what a machine without devices must say is tested.
 */
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
