/*
 * Queue pairs of the connected services in the library: RC, which acknowledges, and UC, which does not.
 */

import { RcQp } from '../spec/classes/rc_qp.ts'
import { UcQp } from '../spec/classes/uc_qp.ts'
import { AccessFlags, Mtu, QpState } from '../spec/enums.ts'
import type { In } from '../spec/schema.ts'
import { WrOpcode } from '../spec/work.ts'
import { addressText, parseAddress } from '../wire/address.ts'
import type { Carrier } from './carrier.ts'
import { RdmaError } from './error.ts'
import type { Access, RemoteMemory, Slice } from './memory.ts'
import { createQueuePair, type Local, type QueuePair, type QueuePairOptions, type SendOptions } from './queue-pair.ts'
import { putAtomic, putImmediate, putInvalidate, putRemote } from './requests.ts'

/** What a peer must know to connect: plain data, to be sent to it in any way. */
export interface Endpoint {
  readonly qpn: number
  /** IPv4 or IPv6 address as text. */
  readonly gid: string
  /** The first packet sequence number that this side sends. */
  readonly psn: number
}

export interface ConnectOptions {
  /** Rights of the peer; default: what registered regions grant, all of it. */
  readonly access?: Omit<Access, 'localWrite' | 'window'>
  /** Bytes of payload in a packet: 256, 512, 1024, 2048 or 4096. Default: what the port allows. */
  readonly pathMtu?: number
  /** IPv4 TOS or IPv6 traffic class. */
  readonly trafficClass?: number
}

export interface RcConnectOptions extends ConnectOptions {
  /** Local ACK timeout, 4.096 µs · 2^n, 0 none; default 14 (67 ms). */
  readonly timeout?: number
  /** Resends before a request fails, 0–7; default 7. */
  readonly retries?: number
  /** Tries while the peer has no receive posted, 0–7, 7 without end; default 7. */
  readonly rnrRetries?: number
  /** What a peer waits before it tries again when nothing is posted here, code 0–31; default 12 (0.64 ms). */
  readonly rnrTimer?: number
  /** READs and atomics under way at once, of either side; default 16. */
  readonly maxReads?: number
}

export interface MessageOptions extends SendOptions {
  /** A u32 that the peer's completion shows. */
  readonly immediate?: number
}
export interface RcMessageOptions extends MessageOptions {
  /** A key of the peer's that the message invalidates; not together with `immediate`. */
  readonly invalidate?: number
}

interface Connected {
  /** What the peer must know to connect to it. */
  readonly endpoint: Endpoint
  /** WRITE: the peer's memory gets the bytes; with `immediate` it also completes a receive there. */
  write(local: Local, remote: RemoteMemory, options?: MessageOptions): void
}

export interface UcQueuePair extends QueuePair<typeof UcQp>, Connected {
  /** From RESET to ready to send, towards a peer. */
  connect(peer: Endpoint, options?: ConnectOptions): void
  send(local: Local, options?: MessageOptions): void
}

export interface RcQueuePair extends QueuePair<typeof RcQp>, Connected {
  /** From RESET to ready to send, towards a peer. */
  connect(peer: Endpoint, options?: RcConnectOptions): void
  send(local: Local, options?: RcMessageOptions): void
  /** READ: the peer's bytes come into `local`. */
  read(local: Slice | readonly Slice[], remote: RemoteMemory, options?: SendOptions): void
  /** Swaps the peer's 64-bit word if it is `compare`; `local` (8 bytes) gets what it was. */
  compareSwap(local: Slice, remote: RemoteMemory, compare: bigint, swap: bigint, options?: SendOptions): void
  /** Adds to the peer's 64-bit word; `local` (8 bytes) gets what it was. */
  fetchAdd(local: Slice, remote: RemoteMemory, add: bigint, options?: SendOptions): void
}

/** What a device knows that its queue pairs need. */
export interface PathFacts {
  /** Its own address, and the index in the GID table. */
  readonly gid: Uint8Array
  readonly gidIndex: number
  /** Largest path MTU of the port, bytes. */
  readonly pathMtu: number
}

const { INIT, RTR, RTS } = QpState.values
const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
const wr = WrOpcode.values
const EINVAL = 22
const HOP_LIMIT = 64

const accessOf = ({ remoteRead = true, remoteWrite = true, remoteAtomic = true }: Access = {}): number =>
  (remoteRead ? REMOTE_READ : 0) | (remoteWrite ? REMOTE_WRITE : 0) | (remoteAtomic ? REMOTE_ATOMIC : 0)

const mtuCode = (bytes: number): number => {
  const code = Math.log2(bytes) - 7
  if (Object.values(Mtu.values).includes(code as 1)) return code
  throw new RdmaError('EINVAL', EINVAL, 'qp.connect', `pathMtu ${bytes}: it is 256, 512, 1024, 2048 or 4096`)
}

const addressTo = (path: PathFacts, { gid }: Endpoint, trafficClass: number) => {
  const dgid = parseAddress(gid)
  if (dgid === undefined) throw new RdmaError('EINVAL', EINVAL, 'qp.connect', `gid "${gid}" is no address`)
  return {
    dgid,
    sgidIndex: path.gidIndex,
    port: 1,
    isGlobal: 1,
    flowLabel: 0,
    hopLimit: HOP_LIMIT,
    trafficClass,
    sl: 0,
    staticRate: 0,
  }
}

const firstPsn = (): number => Math.floor(Math.random() * 0x100_0000)

/** What both services share beyond what all queue pairs do. */
const connectedParts = (made: ReturnType<typeof createQueuePair>, path: PathFacts) => {
  const { qp, poster } = made
  const psn = firstPsn()
  return {
    endpoint: { qpn: qp.qpn, gid: addressText(path.gid), psn },
    write(local: Local, remote: RemoteMemory, options?: MessageOptions): void {
      const immediate = options?.immediate
      const opcode = immediate === undefined ? wr.RDMA_WRITE : wr.RDMA_WRITE_WITH_IMM
      const at = poster.begin('qp.write', opcode, local, options)
      putRemote(poster.ring, at, remote.address, remote.rkey)
      if (immediate !== undefined) putImmediate(poster.ring, at, immediate)
      poster.end()
    },
  }
}

/** RESET → INIT → RTR → RTS with what both services need. */
const connectSteps = (path: PathFacts, own: Endpoint, peer: Endpoint, options: ConnectOptions) => ({
  init: { state: INIT, pkeyIndex: 0, port: 1, accessFlags: accessOf(options.access) },
  rtr: {
    state: RTR,
    address: addressTo(path, peer, options.trafficClass ?? 0),
    pathMtu: mtuCode(options.pathMtu ?? path.pathMtu),
    destQpn: peer.qpn,
    rqPsn: peer.psn,
  },
  rts: { state: RTS, sqPsn: own.psn },
})

export const createRcQp = (
  carrier: Carrier,
  pd: number,
  number: number,
  path: PathFacts,
  options: QueuePairOptions,
  closed: () => void,
): RcQueuePair => {
  const { qp, poster } = createQueuePair(carrier, RcQp, pd, number, options, closed)
  const parts = connectedParts({ qp, poster } as never, path)
  const { ring } = poster
  const atomic = (
    call: string,
    opcode: number,
    local: Slice,
    { address, rkey }: RemoteMemory,
    compareOrAdd: bigint,
    swap: bigint,
    sendOptions: SendOptions | undefined,
  ): void => {
    const at = poster.begin(call, opcode, local, sendOptions)
    putAtomic(ring, at, address, rkey, compareOrAdd, swap)
    poster.end()
  }
  return Object.defineProperties(
    {
      ...parts,
      connect(peer: Endpoint, connectOptions: RcConnectOptions = {}): void {
        const { timeout = 14, retries = 7, rnrRetries = 7, rnrTimer = 12, maxReads = 16 } = connectOptions
        const { init, rtr, rts } = connectSteps(path, parts.endpoint, peer, connectOptions)
        const modify = (args: In<typeof RcQp.methods.modify>): void => qp.modify(args)
        modify(init)
        modify({ ...rtr, maxDestRdAtomic: maxReads, minRnrTimer: rnrTimer })
        modify({ ...rts, timeout, retryCnt: retries, rnrRetry: rnrRetries, maxRdAtomic: maxReads })
      },
      send(local: Local, sendOptions?: RcMessageOptions): void {
        const immediate = sendOptions?.immediate
        const invalidate = sendOptions?.invalidate
        const opcode =
          invalidate !== undefined ? wr.SEND_WITH_INV : immediate !== undefined ? wr.SEND_WITH_IMM : wr.SEND
        const at = poster.begin('qp.send', opcode, local, sendOptions)
        if (invalidate !== undefined) putInvalidate(ring, at, invalidate)
        else if (immediate !== undefined) putImmediate(ring, at, immediate)
        poster.end()
      },
      read(local: Slice | readonly Slice[], remote: RemoteMemory, sendOptions?: SendOptions): void {
        const at = poster.begin('qp.read', wr.RDMA_READ, local, sendOptions)
        putRemote(ring, at, remote.address, remote.rkey)
        poster.end()
      },
      compareSwap: (local: Slice, remote: RemoteMemory, compare: bigint, swap: bigint, sendOptions?: SendOptions) =>
        atomic('qp.compareSwap', wr.ATOMIC_CMP_AND_SWP, local, remote, compare, swap, sendOptions),
      fetchAdd: (local: Slice, remote: RemoteMemory, add: bigint, sendOptions?: SendOptions) =>
        atomic('qp.fetchAdd', wr.ATOMIC_FETCH_AND_ADD, local, remote, add, 0n, sendOptions),
    },
    Object.getOwnPropertyDescriptors(qp),
  ) as RcQueuePair
}

export const createUcQp = (
  carrier: Carrier,
  pd: number,
  number: number,
  path: PathFacts,
  options: QueuePairOptions,
  closed: () => void,
): UcQueuePair => {
  const { qp, poster } = createQueuePair(carrier, UcQp, pd, number, options, closed)
  const parts = connectedParts({ qp, poster } as never, path)
  return Object.defineProperties(
    {
      ...parts,
      connect(peer: Endpoint, connectOptions: ConnectOptions = {}): void {
        const { init, rtr, rts } = connectSteps(path, parts.endpoint, peer, connectOptions)
        const modify = (args: In<typeof UcQp.methods.modify>): void => qp.modify(args)
        modify(init)
        modify(rtr)
        modify(rts)
      },
      send(local: Local, sendOptions?: MessageOptions): void {
        const immediate = sendOptions?.immediate
        const opcode = immediate === undefined ? wr.SEND : wr.SEND_WITH_IMM
        const at = poster.begin('qp.send', opcode, local, sendOptions)
        if (immediate !== undefined) putImmediate(poster.ring, at, immediate)
        poster.end()
      },
    },
    Object.getOwnPropertyDescriptors(qp),
  ) as UcQueuePair
}
