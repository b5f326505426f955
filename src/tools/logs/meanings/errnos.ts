/*
 * What an errno of a call of verbs or rdma_cm means for that call, and numbers that are no errno where one is printed.
 */
import { Errno, type ErrnoName, errnoName } from '../../../spec/errno.ts'
import { rejectText } from '../../../spec/wire/mad.ts'
import type { Meaning } from './certainty.ts'

/** Texts of strerror of glibc and of the kernel's users, and libfabric's of the same numbers. */
const texts: Readonly<Record<string, ErrnoName>> = {
  'Operation not permitted': 'EPERM',
  'No such file or directory': 'ENOENT',
  'Input/output error': 'EIO',
  'No such device or address': 'ENXIO',
  'Bad file descriptor': 'EBADF',
  'Resource temporarily unavailable': 'EAGAIN',
  'Cannot allocate memory': 'ENOMEM',
  'Permission denied': 'EACCES',
  'Bad address': 'EFAULT',
  'Device or resource busy': 'EBUSY',
  'No such device': 'ENODEV',
  'Invalid argument': 'EINVAL',
  'Too many open files': 'EMFILE',
  'No space left on device': 'ENOSPC',
  'Function not implemented': 'ENOSYS',
  'Protocol not supported': 'EPROTONOSUPPORT',
  'Operation not supported': 'EOPNOTSUPP',
  'Address already in use': 'EADDRINUSE',
  'Cannot assign requested address': 'EADDRNOTAVAIL',
  'No data available': 'ENODATA',
  'Network is unreachable': 'ENETUNREACH',
  'Connection reset by peer': 'ECONNRESET',
  'Connection timed out': 'ETIMEDOUT',
  'Connection refused': 'ECONNREFUSED',
  'No route to host': 'EHOSTUNREACH',
  'Remote I/O error': 'EREMOTEIO',
  'Value too large for defined data type': 'EOVERFLOW',
}

/** Any of the texts, as a part of a regular expression. */
export const ERRNO = [...Object.keys(texts), 'Unknown error \\d+'].join('|').replaceAll('/', '\\/')

/** Linux's own number, which user space has no name for. */
const ENOTSUPP = 524

/** The number of an errno: `-12`, `12`, `ENOMEM`, `Cannot allocate memory`, `Unknown error 524`. */
export const errnoOf = (word: string): number | undefined => {
  const text = word.trim()
  const number = /^-?(\d{1,4})$/.exec(text) ?? /Unknown error (\d{1,4})/.exec(text)
  if (number !== null) return Number(number[1])
  if (text === 'ENOTSUPP') return ENOTSUPP
  if (Object.hasOwn(Errno, text)) return Errno[text as ErrnoName]
  const found = Object.keys(texts).find(known => text.startsWith(known))
  return found === undefined ? undefined : Errno[texts[found]!]
}

export const errnoLabel = (errno: number): string =>
  errno === ENOTSUPP ? 'ENOTSUPP (524)' : errno in NUMBERS ? `${errnoName(errno)} (${errno})` : `errno ${errno}`
const NUMBERS: Readonly<Record<number, true>> = Object.fromEntries(Object.values(Errno).map(number => [number, true]))

interface ErrnoRow extends Meaning {
  /** Calls (a part of the name), or `` for all; the first row that fits counts. */
  readonly call: RegExp
  /** The state that the queue pair was to have. */
  readonly state?: RegExp
}

const row = (
  call: RegExp,
  text: string,
  certainty: Meaning['certainty'],
  source: string,
  state?: RegExp,
): ErrnoRow => ({
  call,
  text,
  certainty,
  source,
  ...(state !== undefined && { state }),
})

const MODIFY = /modify_qp|modify QP|rdma_init_qp_attr|create_ah/i
const REGISTER = /reg_(?:dmabuf_)?mr|RegisterMemory|register|reg_dm/i
const ANY = /./
const LINUX = 'Linux 6.1 drivers/infiniband'

const byErrno: Readonly<Record<number, readonly ErrnoRow[]>> = {
  [Errno.ETIMEDOUT]: [
    row(
      MODIFY,
      "the MAC address of the peer's IP address could not be found: ARP or neighbour discovery had no answer between exactly these two ports",
      'sure',
      `${LINUX}/core/addr.c`,
    ),
    row(/resolve|rdma_/, 'no answer came in time', 'sure', `${LINUX}/core/cma.c`),
  ],
  [Errno.ENODATA]: [
    row(
      MODIFY,
      'the GID index has no GID: its entry is empty, or belongs to another network namespace',
      'sure',
      `${LINUX}/core/cache.c`,
    ),
    row(/resolve|connect|ah/, 'nothing is known of the way to the peer', 'likely', `${LINUX}/core/addr.c`),
  ],
  [Errno.ENETUNREACH]: [
    row(
      MODIFY,
      'the host has no route from the address of this GID to that of the peer',
      'sure',
      `${LINUX}/core/addr.c`,
    ),
  ],
  [Errno.EHOSTUNREACH]: [
    row(ANY, 'the peer cannot be reached: no route, or nothing answers at its address', 'sure', `${LINUX}/core/addr.c`),
  ],
  [Errno.ENODEV]: [
    row(
      MODIFY,
      'the network interface of the GID is not there: it is down, or in another network namespace',
      'likely',
      `${LINUX}/core/addr.c`,
    ),
    row(/resolve|bind/, 'no RDMA device has this address', 'sure', `${LINUX}/core/cma.c`),
  ],
  [Errno.EINVAL]: [
    row(
      MODIFY,
      'an attribute is not valid: the GID index, the path MTU (above that of the port), the port, or a GID that does not fit the link',
      'sure',
      `${LINUX}/core/verbs.c`,
    ),
    row(
      REGISTER,
      'the memory cannot be registered in this way: memory of a GPU without nvidia_peermem or dma-buf, a length of 0, or rights that exclude each other',
      'likely',
      'public reports',
    ),
  ],
  [Errno.ENOMEM]: [
    row(
      REGISTER,
      'more memory than may be locked (ulimit -l where the process was started), or the adapter has no more regions',
      'sure',
      `${LINUX}/core/umem.c`,
    ),
    row(/post_/, 'the queue is full: more requests are posted than it was made for', 'sure', 'ibv_post_send(3)'),
    row(/create[_ ]/, 'a limit of the adapter, or of locked memory, is reached', 'sure', LINUX),
  ],
  [Errno.EFAULT]: [
    row(
      REGISTER,
      'the address is not mapped; for memory of a GPU: nvidia_peermem is not loaded, or could not map it',
      'likely',
      'public reports',
    ),
  ],
  [Errno.EOPNOTSUPP]: [
    row(/dmabuf/i, 'the kernel, the driver or the GPU driver does not export dma-buf', 'likely', 'public reports'),
    row(ANY, 'the adapter or its driver does not have this', 'sure', LINUX),
  ],
  [ENOTSUPP]: [
    row(
      ANY,
      'a number of the kernel only (strerror has no text for it): the driver does not support the operation with these attributes',
      'sure',
      'Linux 6.1 include/linux/errno.h',
    ),
  ],
  [Errno.EREMOTEIO]: [
    row(
      /devx|mlx5dv|DEVX/i,
      "the firmware of this host's adapter refused the command; it is not about the remote side. The syndrome says why, if the line has one",
      'sure',
      `${LINUX}/hw/mlx5/devx.c`,
    ),
  ],
  [Errno.EPERM]: [
    row(
      ANY,
      'the process may not do this: a container without IPC_LOCK or the device, or raw packets without CAP_NET_RAW',
      'likely',
      'public reports',
    ),
  ],
  [Errno.EADDRNOTAVAIL]: [
    row(/bind|resolve/, 'this host has no such address on an RDMA port', 'sure', `${LINUX}/core/cma.c`),
  ],
  [Errno.ECONNRESET]: [row(/connect/, 'the peer closed the connection', 'sure', `${LINUX}/core/cma.c`)],
  [Errno.ECONNREFUSED]: [
    row(/connect/, 'nobody listens there, or the listener refused', 'sure', `${LINUX}/core/cma.c`),
  ],
  [Errno.EADDRINUSE]: [row(/bind|listen/, 'another program listens on the port', 'sure', `${LINUX}/core/cma.c`)],
  [Errno.EIO]: [row(ANY, 'the device is gone, was reset, or has failed', 'likely', LINUX)],
}

/** What an errno of a call means; undefined if nothing is known beyond its text. `state`: that of modify_qp. */
export const errnoMeaning = (errno: number, call: string, state = ''): Meaning | undefined => {
  const found = byErrno[errno]?.find(one => one.call.test(call))
  if (found === undefined) return undefined
  const { text, certainty, source } = found
  if (errno === Errno.EINVAL && MODIFY.test(call) && /INIT/.test(state))
    return { text: 'an attribute is not valid: the port, or the P_Key index', certainty, source }
  return { text, certainty, source }
}

/** libfabric prints the reason of a reject as a negative errno. */
export const negatedReason = (printed: number): string =>
  `${rejectText(Math.abs(printed))}; printed as an error number, which it is not`

/** NVMe over RDMA: the status in the private data of a reject (Linux, nvme-rdma.h). */
export const nvmeReject: Readonly<Record<number, string>> = {
  1: 'invalid length of the private data',
  2: 'invalid format of the record',
  3: 'invalid queue id',
  4: 'invalid host send queue size',
  5: 'invalid host receive queue size',
  6: 'no resources',
  7: 'invalid initiator depth (IRD)',
  8: 'invalid responder resources (ORD)',
  9: 'invalid controller id',
}
