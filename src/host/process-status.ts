/*
 * Facts about a process, from /proc and prlimit(2).
 */
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { TWO_32 } from './halves.ts'
import { type Arena, mapArena } from './memory/mapping.ts'
import { libcFunctions } from './native.ts'

const sys = libcFunctions({
  prlimit: 'int prlimit(int pid, int resource, int64_t limit, int64_t into)',
  ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)',
  syscall: 'int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c)',
})

/** The C library's function of the name does not return the number of bytes. */
const schedGetaffinity = (): number => (process.arch === 'arm64' ? 123 : 204)

/** The command name (15 bytes at most, as in ps); undefined if the process has ended. */
export const commandName = (pid: number): string | undefined => {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd()
  } catch {
    return undefined
  }
}

/**
 * Whether a process is of this user, and in no container of it: another one can make us wait for its address space
 * (cmdline, environ, maps) as long as it likes.
 */
const isOwn = (pid: number): boolean => {
  try {
    const user = /^Uid:\t\d+\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
    return Number(user) === process.geteuid?.() && confinementOf(pid) === undefined
  } catch {
    return false
  }
}

export const isThreaded = (pid: number): boolean => {
  try {
    return readdirSync(`/proc/${pid}/task`).length > 1
  } catch {
    return false
  }
}

/** Variables in which launchers tell ranks their number. */
const RANK = /^(?:OMPI_COMM_WORLD_RANK|PMI_RANK|PMIX_RANK|SLURM_PROCID|RANK)=(\d+)$/

/**
 * The program and its arguments without what differs from run to run: paths, ports and ids. '': it has ended, or is
 * another user's.
 */
const wordsOf = (pid: number): string => {
  try {
    if (!isOwn(pid)) return ''
    const read = (name: string): readonly string[] => readFileSync(`/proc/${pid}/${name}`, 'utf8').split('\0')
    const [program = '', ...args] = read('cmdline')
    const rank = read('environ').map(setting => RANK.exec(setting)?.[1])
    const words = [program.split('/').at(-1)!, ...args.filter(word => !word.includes('/')), ...rank.filter(Boolean)]
    return words.join(' ').replace(/\d{3,}/g, '#')
  } catch {
    return ''
  }
}

export const parentOf = (pid: number): number => {
  try {
    return Number(/^PPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0)
  } catch {
    return 0
  }
}

/**
 * The fields of proc(5)'s stat that follow the command, the state first; undefined: it has ended. `id`: of a process,
 * or `PID/task/TID`.
 */
export const statFieldsOf = (id: number | string): readonly string[] | undefined => {
  try {
    const stat = readFileSync(`/proc/${id}/stat`, 'latin1')
    // The command, in parentheses, may have spaces and parentheses.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}

/** The place of the start among `statFieldsOf`. */
export const START_FIELD = 19

/** When the process began, in clock ticks since the machine's start; 0: it has ended. */
export const startOf = (pid: number): number => Number(statFieldsOf(pid)?.[START_FIELD] ?? 0)

/** Of the flags of a thread: it ends (PF_EXITING of linux/sched.h). The place of the flags among `statFieldsOf`. */
const EXITING = 0x4
const FLAGS_FIELD = 6
const SIGKILL = 9

/** Whether a mask of signals in the status of a process has a signal; false if it is gone. */
const hasSignal = (pid: number, mask: 'SigCgt' | 'SigPnd', signal: number): boolean => {
  try {
    const [, signals = '0'] =
      new RegExp(`^${mask}:\\s*([0-9a-f]+)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? []
    return ((BigInt(`0x${signals}`) >> BigInt(signal - 1)) & 1n) === 1n
  } catch {
    return false
  }
}

/**
 * Whether a process ends or has ended, also if its parent has not taken its status, or another of its threads has begun
 * to end it.
 */
export const isEnding = (pid: number): boolean => {
  const fields = statFieldsOf(pid)
  if (fields === undefined || /[ZX]/.test(fields[0]!) || (Number(fields[FLAGS_FIELD]) & EXITING) !== 0) return true
  return hasSignal(pid, 'SigPnd', SIGKILL)
}

/** The children of a process, as far as the kernel tells (CONFIG_PROC_CHILDREN). */
export const childrenOf = (pid: number): readonly number[] => {
  try {
    const ofTask = (task: string): string => readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1')
    return readdirSync(`/proc/${pid}/task`).flatMap(task => ofTask(task).split(' ').filter(Boolean).map(Number))
  } catch {
    return []
  }
}

/** The processes that a process has started, and those that they have started, as far as these live. */
export const descendantsOf = (pid: number): number[] =>
  childrenOf(pid).flatMap(child => [child, ...descendantsOf(child)])

/** Whether a process has a handler for a signal; false if it has ended. */
export const catches = (pid: number, signal: number): boolean => hasSignal(pid, 'SigCgt', signal)

/** The settings (`NAME=value`) that the process was started with; empty: it has ended, or is another user's. */
const environmentOf = (pid: number): readonly string[] => {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0')
  } catch {
    return []
  }
}

/** Whether the process was started with this variable in its environment; false if it is another user's. */
export const hasVariable = (pid: number, name: string): boolean =>
  isOwn(pid) && environmentOf(pid).some(setting => setting.startsWith(`${name}=`))

/** Generations of a program that forks which are told apart. */
const MAX_GENERATIONS = 8

/**
 * What a process is in each run of the same programs: its program and arguments, and how often it was forked by one
 * with the same.
 */
export const roleOf = (pid: number): string => {
  const words = wordsOf(pid)
  let generation = 0
  for (let parent = parentOf(pid); parent > 1 && generation < MAX_GENERATIONS; parent = parentOf(parent)) {
    if (wordsOf(parent) !== words) break
    generation++
  }
  return generation === 0 ? words : `${words} (fork ${generation})`
}

/** The initial user namespace (PROC_USER_INIT_INO). */
export const INITIAL_USER_NAMESPACE = 'user:[4026531837]'

/** Undefined if the process has ended, or the kernel has no user namespaces. */
const userNamespaceOf = (pid: number | 'self'): string | undefined => {
  try {
    return readlinkSync(`/proc/${pid}/ns/user`)
  } catch {
    return undefined
  }
}

/**
 * Whether a process has capability CAP_… (a number) in a user namespace, by default this process's. False if the
 * process has ended, or is in another namespace: any user has all capabilities in a namespace of their own.
 *
 * The capabilities are read before the namespace: a process can move to another namespace between the two reads, and so
 * gain capabilities there, but cannot return.
 */
export const hasCapability = (
  pid: number,
  capability: number,
  userNamespace: string | undefined = userNamespaceOf('self'),
): boolean => {
  try {
    const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
    const isRaised = effective !== undefined && ((BigInt(`0x${effective}`) >> BigInt(capability)) & 1n) === 1n
    return isRaised && userNamespaceOf(pid) === userNamespace
  } catch {
    return false
  }
}

/** Inode of a namespace of a process; undefined if the process has ended, or the kernel has no such namespaces. */
const namespaceOf = (pid: number | 'self', kind: 'user' | 'pid'): number | undefined =>
  statSync(`/proc/${pid}/ns/${kind}`, { throwIfNoEntry: false })?.ino

/** The permitted capabilities, as bits. Throws if the process has ended. */
const permittedOf = (pid: number | 'self'): bigint =>
  BigInt(`0x${/^CapPrm:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? '0'}`)

const NS_GET_PARENT = 0xb702
/** The kernel nests PID namespaces 32 levels deep. */
const MAX_LEVELS = 32

/**
 * Inode of the outermost PID namespace of a process below ours, so that a container gains nothing by namespaces inside
 * it. Ours if the process is in it; 0 if it cannot be told.
 */
const pidNamespaceBelow = (pid: number): number => {
  const own = namespaceOf('self', 'pid')
  let fd = openSync(`/proc/${pid}/ns/pid`, 'r')
  try {
    for (let level = 0; level < MAX_LEVELS; level++) {
      const inode = fstatSync(fd).ino
      const parent = inode === own ? -1 : sys().ioctl(fd, NS_GET_PARENT, 0)
      if (parent < 0) return inode === own ? inode : 0
      closeSync(fd)
      fd = parent
      if (fstatSync(fd).ino === own) return inode
    }
    return 0
  } finally {
    closeSync(fd)
  }
}

/** With both a process reaches all others of its user namespace, whatever its other namespaces are. */
const REACHES_ALL = (1n << 19n) | (1n << 21n) // CAP_SYS_PTRACE, CAP_SYS_ADMIN

/**
 * Whether a process of this process's user is confined, as in a container: it is in another user namespace, or lacks
 * capabilities that this process has, so that it could not trace this process (ptrace(2)), or does not see it, because
 * it is in another PID namespace. Returns what tells containers apart, the inode of `pidNamespaceBelow`; undefined: it
 * is not.
 */
export const confinementOf = (pid: number): number | undefined => {
  try {
    const own = permittedOf('self')
    const permitted = permittedOf(pid)
    const seesUs = namespaceOf(pid, 'pid') === namespaceOf('self', 'pid') || (permitted & REACHES_ALL) === REACHES_ALL
    const isInside = namespaceOf(pid, 'user') === namespaceOf('self', 'user')
    return isInside && seesUs && (permitted & own) === own ? undefined : pidNamespaceBelow(pid)
  } catch {
    return 0
  }
}

/** Bytes of a mask of 8192 processors, the most that the kernel can have. */
const MASK_BYTES = 1024
let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(MASK_BYTES)
  return arena
}

/**
 * By number of a processor, whether a process may run on it; as many as the kernel has, rounded up to 64. Undefined if
 * the process has ended.
 */
export const processorsOf = (pid: number): readonly boolean[] | undefined => {
  const { address, bytes } = workArena()
  const length = sys().syscall(schedGetaffinity(), pid, MASK_BYTES, address)
  if (length < 0) return undefined
  return Array.from({ length: length * 8 }, (_, cpu) => ((bytes[cpu >> 3]! >> (cpu & 7)) & 1) === 1)
}

const RLIMIT_NOFILE = 7
const RLIMIT_MEMLOCK = 8

/** `pid` 0: this process. Infinity: no limit, or unknown. */
const softLimit = (pid: number, resource: number): number => {
  const { address, u32 } = workArena()
  if (sys().prlimit(pid, resource, 0, address) !== 0) return Number.POSITIVE_INFINITY
  const low = u32[0]!
  const high = u32[1]!
  return high === 0xffff_ffff ? Number.POSITIVE_INFINITY : high * TWO_32 + low
}

/** The soft limit of the bytes that a process may lock (RLIMIT_MEMLOCK). Infinity: no limit, or unknown. */
export const lockLimit = (pid: number): number => softLimit(pid, RLIMIT_MEMLOCK)

/** The soft limit of this process's descriptors (RLIMIT_NOFILE). Infinity: no limit, or unknown. */
export const descriptorLimit = (): number => softLimit(0, RLIMIT_NOFILE)

/**
 * Whether a child of fork gets a copy of the memory at an address: the mapping is private, without MADV_DONTFORK and
 * MADV_WIPEONFORK. Undefined if no mapping contains the address, the mappings cannot be read, or the process is another
 * user's.
 */
export const isCopiedByFork = (pid: number, address: number): boolean | undefined => {
  try {
    if (!isOwn(pid)) return undefined
    const maps = readFileSync(`/proc/${pid}/smaps`, 'latin1')
    for (const [, start, end, flags] of maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) .*\n(?:[A-Z].*\n)*?VmFlags: (.*)$/gm)) {
      if (address < Number.parseInt(start!, 16) || address >= Number.parseInt(end!, 16)) continue
      const vmFlags = flags!.trim().split(' ')
      // shared, MADV_DONTFORK, MADV_WIPEONFORK
      return !['sh', 'dc', 'wf'].some(flag => vmFlags.includes(flag))
    }
  } catch {}
  return undefined
}

/**
 * The file of which the memory at an address is a private, writable mapping; undefined if it is none, if the file is
 * also mapped as code (a program or library, whose data it is), if the mappings cannot be read, or the process is
 * another user's.
 */
export const privateFileAt = (pid: number, address: number): string | undefined => {
  try {
    if (!isOwn(pid)) return undefined
    const maps = readFileSync(`/proc/${pid}/maps`, 'latin1')
    const code = new Set<string>()
    let file: string | undefined
    for (const [, start, end, rights, path] of maps.matchAll(
      /^([0-9a-f]+)-([0-9a-f]+) (\S+) .{9,}:.. \d+ +(\/.*)$/gm,
    )) {
      if (rights![2] === 'x') code.add(path!)
      const isAt = address >= Number.parseInt(start!, 16) && address < Number.parseInt(end!, 16)
      if (isAt && rights![1] === 'w' && rights![3] === 'p' && path !== '/dev/zero') file = path
    }
    return file === undefined || code.has(file) ? undefined : file
  } catch {
    return undefined
  }
}

/** Numbers of read(2) and recvfrom(2). */
const readCalls = (): readonly number[] => (process.arch === 'arm64' ? [63, 207] : [0, 45])

/**
 * What threads of a process read from now, in read(2) or recv(2): targets of links in /proc/PID/fd by descriptor, such
 * as `socket:[1]`. Empty for a process of another user, or if /proc does not tell.
 */
export const readDescriptors = (pid: number): ReadonlyMap<number, string> => {
  const found = new Map<number, string>()
  try {
    if (!isOwn(pid)) return found
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const [call, fd] = readFileSync(`/proc/${pid}/task/${thread}/syscall`, 'latin1').split(' ', 2).map(Number)
      if (readCalls().includes(call!)) found.set(fd!, readlinkSync(`/proc/${pid}/fd/${fd}`))
    }
  } catch {}
  return found
}

/** A descriptor in a set of epoll(7); `events`: EPOLLIN and others. */
interface EpollEntry {
  readonly fd: number
  readonly events: number
}

/** The entries of the set of descriptor `fd` of a process; empty: it is no such set, or /proc does not tell. */
export const epollEntries = (pid: number, fd: number): readonly EpollEntry[] => {
  try {
    const text = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')
    return [...text.matchAll(/^tfd:\s*(\d+) events:\s*([0-9a-f]+)/gm)].map(([, number, events]) => ({
      fd: Number(number),
      events: Number.parseInt(events!, 16),
    }))
  } catch {
    return []
  }
}

/**
 * The processes of this user that were started with this setting (`NAME=value`) in their environment, without our own.
 */
export const processesWith = (setting: string): readonly number[] =>
  readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map(Number)
    .filter(pid => environmentOf(pid).includes(setting))
