/*
 * Datagrams in the library (IBA 9.8, 11.2.2): UD queue pairs, address handles, groups, and what a received datagram
 * says of its sender.
 */
import { Ah } from '../spec/classes/ah.ts'
import { UdQp } from '../spec/classes/ud_qp.ts'
import { QpState } from '../spec/enums.ts'
import type { Out } from '../spec/schema.ts'
import { WrOpcode } from '../spec/work.ts'
import { addressText, parseAddress } from '../wire/address.ts'
import { IPV4_BYTES, IPV6_BYTES } from '../wire/ip.ts'
import { addressTo, type PathOptions } from './connection.ts'
import { invalid } from './error.ts'
import type { MessageOptions } from './operations.ts'
import { closer, type Kit, type Named, type Plan, plan } from './plan.ts'
import {
  beginRequest,
  endRequest,
  type Local,
  type QpSelf,
  type QueuePair,
  type QueuePairOptions,
  queuePairMethods,
  queuePairPlan,
} from './queue-pair.ts'
import { putDestination, putImmediate } from './requests.ts'
import type { ProgramRing } from './ring.ts'

/** Where datagrams go to: an IPv4 or IPv6 address as text, a group's too, and how packets are marked. */
export interface Destination extends PathOptions {
  readonly gid: string
}

export interface AddressHandle extends Disposable {
  readonly handle: number
  /** What work requests name it by. */
  readonly number: number
  query(): Out<typeof Ah.methods.query>
  /** Datagrams that are sent later go elsewhere. */
  modify(to: Destination): void
  close(): void
}

/** What others must know to send to a datagram queue pair: plain data. */
export interface DatagramEndpoint extends Destination {
  readonly qpn: number
  readonly qkey: number
}

/** One receiver: a queue pair at an address. Make it once and send to it as often as wanted. */
export interface DatagramPeer {
  readonly ah: AddressHandle
  readonly qpn: number
  readonly qkey: number
}

export interface UdQueuePair extends QueuePair<typeof UdQp> {
  /** What others must know to send to it. Its Q_Key is what `activate` has set. */
  readonly endpoint: DatagramEndpoint
  /** From RESET to ready to send; datagrams with another Q_Key are dropped from then on. Default Q_Key 0x11111111. */
  activate(options?: { readonly qkey?: number }): void
  /** At most one packet's worth of bytes. A receiver needs 40 bytes more than that (`completion.hasGrh`). */
  send(local: Local, to: DatagramPeer, options?: MessageOptions): void
  /** Receives datagrams to a group from now on; `gid` as text: 224.0.0.0/4 or ff00::/8. */
  attach(gid: string): void
  detach(gid: string): void
}

/** Queue pair number that means all members of a group. */
export const MULTICAST_QPN = 0xffffff
const QKEY = 0x11111111
const { INIT, RTR, RTS } = QpState.values
const { SEND, SEND_WITH_IMM } = WrOpcode.values

/** Bytes before the payload in a buffer that has received a datagram. */
export const GRH_BYTES = IPV6_BYTES

/** Where a received datagram came from, of the first 40 bytes of its buffer. */
export const senderOf = (header: Uint8Array): Destination => {
  if (header.length < GRH_BYTES) throw invalid('senderOf', `${header.length} bytes, a header has ${GRH_BYTES}`)
  const view = new DataView(header.buffer, header.byteOffset, GRH_BYTES)
  if (view.getUint8(0) >> 4 === 6) {
    const word = view.getUint32(0)
    return {
      gid: addressText(header.subarray(8, 24)),
      trafficClass: (word >> 20) & 0xff,
      flowLabel: word & 0xfffff,
    }
  }
  const ip = GRH_BYTES - IPV4_BYTES
  return { gid: header.subarray(ip + 12, ip + 16).join('.'), trafficClass: header[ip + 1] }
}

const groupOf = (call: string, gid: string) => {
  const bytes = parseAddress(gid)
  if (bytes === undefined) throw invalid(call, `gid "${gid}" is no address`)
  return { gid: bytes, mlid: 0 }
}

/** An address handle in protection domain `pd`. */
export const addressPlan = ({ carrier, path }: Kit, pd: Named, to: Destination): Plan<AddressHandle> =>
  plan(
    Ah,
    { pd: pd.handle, address: addressTo('ah.create', path, to.gid, to), userHandle: 0n },
    ({ object: handle, out }) => {
      const close = closer(carrier, Ah, handle)
      return {
        handle,
        number: (out as { number: number }).number,
        query: () => carrier.call(Ah, 'query', handle, {}).out,
        modify(other) {
          carrier.call(Ah, 'modify', handle, { address: addressTo('ah.modify', path, other.gid, other) })
        },
        close,
        [Symbol.dispose]: close,
      }
    },
  )

const udMethods = queuePairMethods(UdQp, {
  get endpoint(): DatagramEndpoint {
    const { kit, qpn, qkey } = this as unknown as QpSelf
    return { qpn, gid: addressText(kit.path.gid), qkey: qkey === 0 ? QKEY : qkey }
  },
  activate(this: QpSelf & UdQueuePair, { qkey = QKEY }: { readonly qkey?: number } = {}): void {
    this.modify({ state: INIT, pkeyIndex: 0, port: 1, qkey })
    this.modify({ state: RTR })
    this.modify({ state: RTS, sqPsn: this.psn })
    this.qkey = qkey
  },
  send(this: QpSelf, local: Local, to: DatagramPeer, options?: MessageOptions): void {
    const immediate = options?.immediate
    const at = beginRequest(this, 'qp.send', immediate === undefined ? SEND : SEND_WITH_IMM, local, options)
    const ring = this.sends as ProgramRing
    putDestination(ring, at, to.ah.number, to.qpn, to.qkey)
    if (immediate !== undefined) putImmediate(ring, at, immediate)
    endRequest(this)
  },
  attach(this: QpSelf, gid: string): void {
    this.kit.carrier.call(UdQp, 'attachMcast', this.handle, groupOf('qp.attach', gid))
  },
  detach(this: QpSelf, gid: string): void {
    this.kit.carrier.call(UdQp, 'detachMcast', this.handle, groupOf('qp.detach', gid))
  },
})

export const udQpPlan = (kit: Kit, pd: Named, options: QueuePairOptions): Plan<UdQueuePair> =>
  queuePairPlan(kit, udMethods, pd, options)
