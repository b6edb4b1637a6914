/**
 * What the test guest is made of. Only names and lists: how they become an image is `build.ts`. Everything comes from Debian, by
 * the package sources that this machine is configured with; siw is compiled from Debian's kernel source, because Debian's kernels
 * leave it out.
 */

/** Packages of the guest's root file system. */
export const guestPackages = [
  'busybox-static',
  'e2fsprogs',
  'fuse3',
  'ibverbs-providers',
  'iproute2',
  'kmod',
  'libfuse2',
  'libiscsi-bin',
  'libstdc++6',
  'librdmacm1',
  'open-iscsi',
  'procps',
  'qemu-utils',
  'socat',
  'tgt',
] as const;

/** Packages of which a few files are taken, without what they depend on: qemu-block-extra would bring all of Ceph along. */
export const unpackedPackages: Readonly<Record<string, readonly string[]>> = {
  'qemu-block-extra': ['usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so'],
};

/** What nobody in the guest reads. */
export const excludedPaths = ['doc', 'man', 'locale', 'info', 'zoneinfo', 'i18n'].map((name) => `/usr/share/${name}/*`);

/** Modules with which the initramfs reaches the root file system. */
export const bootModules = [
  'virtio_pci',
  'virtio_blk',
  'virtio_net',
  'virtio_rng',
  'squashfs',
  'overlay',
  '9p',
  '9pnet_virtio',
] as const;

/** Modules in the root file system; what they need comes along. */
export const guestModules = [
  ...bootModules,
  // rxe needs a crc32 algorithm and does not say so in its dependencies; siw likewise crc32c.
  'crc32_generic',
  'crc32c_generic',
  'dummy',
  'ext4',
  'fuse',
  'ib_iser',
  'ib_isert',
  'ib_uverbs',
  'iscsi_target_mod',
  'iscsi_tcp',
  'rdma_cm',
  'rdma_rxe',
  'rdma_ucm',
  'sd_mod',
  'siw',
  'target_core_file',
  'tcp_diag',
  'target_core_mod',
] as const;

export const siwSourceFolder = 'drivers/infiniband/sw/siw';
