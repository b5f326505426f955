/*
 * A listening socket that systemd passes to the program it starts: the protocol of sd_listen_fds(3). The socket stays
 * systemd's: the program closes it at its end, and does not remove its file.
 */
import { mapArena } from '../memory/mapping.ts'
import { check, libcFunctions } from '../native.ts'
import { SOL_SOCKET } from './socket-constants.ts'

const sys = libcFunctions({
  getsockname: 'int getsockname(int fd, int64_t address, int64_t length)',
  getsockopt: 'int getsockopt(int fd, int level, int option, int64_t value, int64_t length)',
  listen: 'int listen(int fd, int backlog)',
  ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)',
})

/** SD_LISTEN_FDS_START: the first descriptor that systemd passes. */
const FIRST_FD = 3
const AF_UNIX = 1
const SOCK_SEQPACKET = 5
const SO_TYPE = 3
const SO_ACCEPTCONN = 30
const FIONBIO = 0x5421
const FIOCLEX = 0x5451
const BACKLOG = 128
/** Offsets in the scratch memory: an option's value, its length, and a struct sockaddr_un. */
const VALUE = 0
const LENGTH = 4
const ADDRESS = 64
const SCRATCH_BYTES = 4096

/** A socket that another process has bound and listens on. */
export interface InheritedSocket {
  readonly fd: number
  /** Its absolute path. */
  readonly path: string
}

/**
 * Makes a listening AF_UNIX socket of type SOCK_SEQPACKET ours; the path of its file. Undefined for other descriptors.
 */
const takeListener = (fd: number): string | undefined => {
  const { address, i32, bytes } = mapArena(SCRATCH_BYTES)
  const option = (name: number): number | undefined => {
    i32[LENGTH >> 2] = 4
    const result = sys().getsockopt(fd, SOL_SOCKET, name, address + VALUE, address + LENGTH)
    return result === 0 ? i32[VALUE >> 2] : undefined
  }
  if (option(SO_TYPE) !== SOCK_SEQPACKET || option(SO_ACCEPTCONN) !== 1) return undefined
  i32[LENGTH >> 2] = SCRATCH_BYTES - ADDRESS
  check('getsockname', sys().getsockname(fd, address + ADDRESS, address + LENGTH))
  const path = Buffer.from(bytes.subarray(ADDRESS + 2, ADDRESS + i32[LENGTH >> 2]!)).toString()
  if (bytes[ADDRESS] !== AF_UNIX || !path.startsWith('/')) return undefined
  i32[VALUE >> 2] = 1
  check('ioctl(FIONBIO)', sys().ioctl(fd, FIONBIO, address + VALUE))
  check('ioctl(FIOCLEX)', sys().ioctl(fd, FIOCLEX, 0))
  // From now on clients see this process as their peer (SO_PEERCRED), not systemd.
  check('listen', sys().listen(fd, BACKLOG))
  return path.replace(/\0.*$/s, '')
}

/**
 * The socket that systemd has passed to this process; undefined if it has passed none. Removes the variables of the
 * protocol from `env`. Throws an Error with a message for people if systemd has passed something else.
 */
export const inheritedSocket = (env: NodeJS.ProcessEnv = process.env): InheritedSocket | undefined => {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = env
  // After a fork the variables may be those of another process.
  if (pid !== String(process.pid) || count === undefined || count === '0') return undefined
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name]
  if (count !== '1')
    throw new Error(`${count} sockets were passed (LISTEN_FDS); one is allowed: use one ListenSequentialPacket=`)
  const path = takeListener(FIRST_FD)
  if (path === undefined)
    throw new Error(
      'the socket that was passed (LISTEN_FDS) is not a listening one of a path and type SOCK_SEQPACKET: use ListenSequentialPacket=/PATH',
    )
  return { fd: FIRST_FD, path }
}
