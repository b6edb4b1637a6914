/**
 * Of which part of the work a sample is: a table of patterns, the first that fits decides. A part is what the innermost frame is in;
 * within the kernel it is what the kernel was asked for, and the collector and the compiler of V8 are known by any frame.
 */

import type { Frame, Stack } from './perf.ts';

export const groups = ['kernel, FUSE', 'kernel, sockets', 'kernel', 'native code', 'Node', 'V8', 'JavaScript', 'other'] as const;
export type Group = (typeof groups)[number];

export interface Part {
  readonly group: Group;
  readonly title: string;
}

interface Rule extends Part {
  /** Of the innermost frame. */
  readonly object?: RegExp;
  /** Of the innermost frame, or with `anywhere` of any in the kernel or in the same object. */
  readonly symbol?: RegExp;
  readonly anywhere?: boolean;
}

const kernelObject = /^\[(?!unknown|vdso|heap|stack|anon|JIT)/;
const kernel = (group: Group, title: string, symbol = /^/): Rule => ({
  group,
  title,
  object: kernelObject,
  symbol,
  anywhere: true,
});
const addon = (title: string, name: string, symbol = /^/): Rule => ({
  ...{ group: 'native code', title, symbol },
  object: new RegExp(`/iserfs_${name}\\.node$`),
});
const collector = /Scaveng|Heap::(Collect|Perform|Scavenge)|MarkCompact|Marking|GCJob|Sweep|Evacuat/;
const compiler = /v8::internal::(\w*Compil|\w*Pars|(compiler|maglev|baseline|interpreter)::)/;

const rules: readonly Rule[] = [
  kernel('kernel, sockets', 'send', /^(sock_write_iter|sock_sendmsg|__sys_send|___sys_sendmsg|tcp_sendmsg)/),
  kernel('kernel, sockets', 'receive', /^(sock_read_iter|sock_recvmsg|__sys_recv|___sys_recvmsg|tcp_recvmsg)/),
  // Nothing but /dev/fuse is read and written in several pieces.
  kernel('kernel, FUSE', 'requests', /^fuse_dev_(do_)?(splice_)?read|^do_readv/),
  kernel('kernel, FUSE', 'answers', /^fuse_dev_(do_)?(splice_)?write|^do_writev/),
  kernel('kernel', 'waiting and waking', /epoll|^ep_|poll$|futex|nanosleep|eventfd|timerfd|^(__)?schedule/),
  kernel('kernel', 'page faults and memory', /page_fault|_(mmap|munmap|madvise|mprotect)\b/),
  kernel('kernel', 'interrupts', /sysvec_|irq/),
  kernel('kernel', 'other calls'),
  addon('FUSE', 'fuse'),
  addon('CRC32C', 'rdma', /crc32c|::update(Triples|ByInstruction)/),
  addon('iWARP', 'rdma', /rdma::iwarp::/),
  addon('TCP', 'rdma', /addon::Stream::/),
  addon('rest of the RDMA addon', 'rdma'),
  { group: 'V8', title: 'garbage collection', symbol: collector, anywhere: true },
  { group: 'V8', title: 'compiler', symbol: compiler, anywhere: true },
  { group: 'V8', title: 'builtins and interpreter', symbol: /^Builtins_|^(Builtin|BytecodeHandler|Stub|RegExp):/ },
  { group: 'Node', title: 'N-API', symbol: /^(napi_|node_api_|v8impl::|Napi::)/ },
  { group: 'Node', title: 'libuv', symbol: /^uv_/ },
  { group: 'Node', title: 'Node', symbol: /^node::/ },
  { group: 'V8', title: 'runtime', symbol: /\bv8::/ },
  { group: 'JavaScript', title: "Node's own", symbol: /^JS:.* node:/ },
  { group: 'JavaScript', title: 'dependencies', symbol: /^JS:.*\/node_modules\// },
  { group: 'native code', title: 'C library', object: /^\[vdso\]$|\/(libc|libm|libstdc\+\+|libgcc_s|libpthread|ld-linux)[-.]/ },
];

export function partOf(stack: Stack): Part {
  const [innermost] = stack;
  if (innermost === undefined) return other;
  const rule = rules.find((one) => fits(one, innermost, stack));
  if (rule !== undefined) return { group: rule.group, title: rule.title };
  const folder = /^JS:.*\/dist\/((?:[\w-]+\/)*)[\w-]+\.js/.exec(innermost.symbol)?.[1];
  return folder === undefined ? other : { group: 'JavaScript', title: `src/${folder}`.replace(/\/$/, '') };
}

/** How many samples there are of what. */
export interface Breakdown {
  readonly samples: number;
  /** The largest first. */
  readonly parts: readonly (Part & { readonly samples: number })[];
  /** What the innermost frames of `other` are, the most frequent first. */
  readonly unknown: readonly (Frame & { readonly samples: number })[];
}

export async function breakDown(stacks: AsyncIterable<Stack>): Promise<Breakdown> {
  const parts = new Counter<Part>();
  const unknown = new Counter<Frame>();
  let samples = 0;
  for await (const stack of stacks) {
    const part = partOf(stack);
    samples++;
    parts.add(part, `${part.group}: ${part.title}`);
    const [innermost] = stack;
    if (part === other && innermost !== undefined) unknown.add(innermost, `${innermost.symbol} ${innermost.object}`);
  }
  return { samples, parts: parts.sorted(), unknown: unknown.sorted() };
}

const other: Part = { group: 'other', title: 'unknown' };

function fits({ object, symbol, anywhere }: Rule, innermost: Frame, stack: Stack): boolean {
  if (object !== undefined && !object.test(innermost.object)) return false;
  if (symbol === undefined || symbol.test(innermost.symbol)) return true;
  const isNear = (frame: Frame) => (object === undefined ? frame.object === innermost.object : object.test(frame.object));
  return anywhere === true && stack.some((frame) => isNear(frame) && symbol.test(frame.symbol));
}

class Counter<T extends object> {
  readonly #counts = new Map<string, T & { samples: number }>();

  add(thing: T, key: string): void {
    const counted = this.#counts.get(key);
    if (counted === undefined) this.#counts.set(key, { ...thing, samples: 1 });
    else counted.samples++;
  }

  sorted(): (T & { readonly samples: number })[] {
    return [...this.#counts.values()].sort((one, another) => another.samples - one.samples);
  }
}
