import { describe, expect, it } from 'vitest';
import { parseStacks, type Stack } from '../../bench/perf.ts';
import { breakDown, partOf } from '../../bench/profile-parts.ts';

const kernel = '[kernel.kallsyms]';
const node = '/usr/bin/node';
const jit = '/tmp/perf-7.map';
const fuse = '/x/native/build/iserfs_fuse.node';
const rdma = '/x/native/build/iserfs_rdma.node';

/** `symbol object` pairs, the innermost first. */
const stack = (...frames: (readonly [string, string])[]): Stack => frames.map(([symbol, object]) => ({ symbol, object }));
const partName = (...frames: (readonly [string, string])[]) => {
  const { group, title } = partOf(stack(...frames));
  return `${group}: ${title}`;
};

describe('the part of a sample', () => {
  it('in the kernel is what it was asked for, not where it is', () => {
    const copy = ['copy_page_from_iter', kernel] as const;
    expect(partName(copy, ['fuse_dev_do_read', '[fuse]'], ['vfs_readv', kernel])).toBe('kernel, FUSE: requests');
    expect(partName(copy, ['fuse_dev_do_write', kernel], ['vfs_writev', kernel])).toBe('kernel, FUSE: answers');
    expect(partName(['memcpy', kernel], ['tcp_v4_rcv', kernel], ['tcp_sendmsg', kernel])).toBe('kernel, sockets: send');
    expect(partName(['memcpy', kernel], ['tcp_recvmsg', kernel])).toBe('kernel, sockets: receive');
    expect(partName(['_raw_spin_unlock', kernel], ['do_epoll_wait', kernel])).toBe('kernel: waiting and waking');
    expect(partName(['clear_page', kernel], ['asm_exc_page_fault', kernel], ['memcpy', '/lib/libc.so.6'])).toBe(
      'kernel: page faults and memory',
    );
    expect(partName(['do_syscall_64', kernel], ['tcp_sendmsg', node])).toBe('kernel: other calls');
  });

  it.each([
    ['iserfs::fuse::Channel::read(int)', fuse, 'native code: FUSE'],
    ['iserfs::rdma::iwarp::crc32cUpdate(unsigned int, std::byte const*, unsigned long)', rdma, 'native code: CRC32C'],
    ['iserfs::rdma::iwarp::(anonymous namespace)::updateTriples', rdma, 'native code: CRC32C'],
    ['iserfs::rdma::iwarp::Receiver::take()', rdma, 'native code: iWARP'],
    ['iserfs::addon::Stream::send(Napi::CallbackInfo const&)', rdma, 'native code: TCP'],
    ['iserfs::addon::EventQueue::take()', rdma, 'native code: rest of the RDMA addon'],
    ['clock_gettime', '[vdso]', 'native code: C library'],
    ['__memmove_avx_unaligned_erms', '/usr/lib/x86_64-linux-gnu/libc.so.6', 'native code: C library'],
    ['uv__io_poll', node, 'Node: libuv'],
    ['napi_call_function', node, 'Node: N-API'],
    ['node::AsyncWrap::MakeCallback()', node, 'Node: Node'],
    ['Builtins_LdaNamedPropertyHandler', node, 'V8: builtins and interpreter'],
    ['v8::internal::Runtime_StackGuard(int, unsigned long*)', node, 'V8: runtime'],
    ['v8::internal::Scavenger::ScavengePage()', node, 'V8: garbage collection'],
    ['JS:*read file:///x/dist/scsi/cached-device.js:12:3', jit, 'JavaScript: src/scsi'],
    ['JS:^push file:///x/dist/iser/iscsi/session.js:1:2', jit, 'JavaScript: src/iser/iscsi'],
    ['JS:~add file:///x/dist/bag.js:1:2', jit, 'JavaScript: src'],
    ['JS:*get file:///x/node_modules/lru-cache/dist/esm/index.js:1:2', jit, 'JavaScript: dependencies'],
    ['JS:*processTicksAndRejections node:internal/process/task_queues:67:35', jit, "JavaScript: Node's own"],
    ['[unknown]', '[unknown]', 'other: unknown'],
  ])('%s is %s: %s', (symbol, object, name) => {
    expect(partName([symbol, object], ['JS:*f file:///x/dist/fuse/tree.js:1:1', jit])).toBe(name);
  });

  it('is the garbage collector or the compiler whatever they call', () => {
    expect(partName(['v8::internal::Map::Size()', node], ['v8::internal::Heap::CollectGarbage()', node])).toBe(
      'V8: garbage collection',
    );
    expect(partName(['v8::base::Sort()', node], ['v8::internal::compiler::Pipeline::Run()', node])).toBe('V8: compiler');
  });
});

it('perf’s lines are stacks, a name may have spaces and brackets in it, and the rest is left out', async () => {
  const text = [
    'node 7/7 1.0:',
    '\tffffffff81000000 fuse_dev_do_read ([kernel.kallsyms])',
    '\t    7f00 v8::Call(int, (anonymous namespace)::X) (/usr/bin/node)',
    '',
    '',
    ' 1234 JS:*f file:///x/dist/bag.js:1:2 (/tmp/perf-7.map)',
  ];
  const stacks: Stack[] = [];
  for await (const one of parseStacks(text)) stacks.push(one);
  expect(stacks).toEqual([
    stack(['fuse_dev_do_read', kernel], ['v8::Call(int, (anonymous namespace)::X)', node]),
    stack(['JS:*f file:///x/dist/bag.js:1:2', jit]),
  ]);
});

it('a breakdown counts every sample once, the largest part first, and names what it does not know', async () => {
  const lines = ['1 uv_run (/n/node)', '', '1 what (/n/node)', '', '1 uv_run (/n/node)', ''];
  expect(await breakDown(parseStacks(lines))).toEqual({
    samples: 3,
    parts: [
      { group: 'Node', title: 'libuv', samples: 2 },
      { group: 'other', title: 'unknown', samples: 1 },
    ],
    unknown: [{ symbol: 'what', object: '/n/node', samples: 1 }],
  });
});
