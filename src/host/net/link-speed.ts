/*
 * The speed of a network interface, as its driver tells ethtool(8). By ioctl, because /sys may be that of another
 * network namespace.
 */
import { mapArena } from '../memory/mapping.ts'
import { libcFunctions } from '../native.ts'

const sys = libcFunctions({
  socket: 'int socket(int family, int type, int protocol)',
  ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)',
  close: 'int close(int fd)',
})

const AF_INET = 2
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000
const SIOCETHTOOL = 0x8946
const ETHTOOL_GSET = 1
/** struct ifreq: the name, and a pointer. */
const IFREQ_DATA = 16
const MAX_NAME = 15
/** struct ethtool_cmd behind it: the command u32 at 0, the two halves of the speed, both u16. */
const COMMAND = 64
const Speed = { LOW: COMMAND + 12, HIGH: COMMAND + 28 } as const
const BYTES = COMMAND + 44
const UNKNOWN = 0xffff_ffff

/**
 * Mb/s. Undefined: the interface has no driver that tells, as a loopback, or no carrier; or there is none of this name.
 */
export const linkSpeed = (name: string): number | undefined => {
  const { address, bytes, view, u32 } = workArena()
  bytes.fill(0, 0, BYTES)
  bytes.set(Buffer.from(name).subarray(0, MAX_NAME))
  view.setBigUint64(IFREQ_DATA, BigInt(address + COMMAND), true)
  u32[COMMAND >> 2] = ETHTOOL_GSET
  const socket = sys().socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0)
  if (socket < 0) return undefined
  const isTold = sys().ioctl(socket, SIOCETHTOOL, address) === 0
  sys().close(socket)
  const speed = view.getUint16(Speed.LOW, true) + view.getUint16(Speed.HIGH, true) * 0x1_0000
  return isTold && speed !== 0 && speed !== UNKNOWN ? speed : undefined
}

let arena: ReturnType<typeof mapArena> | undefined
const workArena = (): ReturnType<typeof mapArena> => {
  arena ??= mapArena(BYTES)
  return arena
}
