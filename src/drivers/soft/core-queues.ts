/*
 * Datagram queue pairs of core clients (src/services/, like ib_client in Linux): queue pair 1 of the MAD layer (IBA
 * 3.5.7, 13.4), and the queue pairs of IP over the device. They have no rings and no completions. A received payload is
 * passed to the client's function. A sent payload waits until a `poll` of the device finds room in the port. As on
 * Linux, AckReq is set, although datagrams are not acknowledged.
 */
import type { DatagramPort, MadAddress, ManagementPort } from '../../core/driver-contract.ts'
import type { Account } from '../../core/model.ts'
import { mayChargeMemory, releaseMemory } from '../../core/objects/limits.ts'
import { SystemError } from '../../host/errno.ts'
import { counterValues } from '../../spec/counters.ts'
import { callError } from '../../spec/errno.ts'
import { smallBytes } from '../../spec/memory.ts'
import type { ManagementPath } from '../../spec/subnet-port.ts'
import { ICRC_BYTES, MULTICAST_QPN } from '../../spec/wire/headers.ts'
import { GSI_QKEY, GSI_QPN, MAD_BYTES, madHeader } from '../../spec/wire/mad.ts'
import { MadClass } from '../../spec/wire/management.ts'
import { opcodeNumber } from '../../spec/wire/opcodes.ts'
import { SMI_QPN } from '../../spec/wire/subnet.ts'
import { psnAdd } from '../../transport/engine/psn.ts'
import type { FlowAddress } from '../../transport/phy/port.ts'
import { isSameAddress } from '../../transport/wire/address.ts'
import type { Arena } from '../../transport/wire/arena.ts'
import {
  BTH_ACKREQ,
  BTH_BYTES,
  BTH_PAD_SHIFT,
  bthOpcode,
  bthPadCount,
  bthPkey,
  bthVersion,
  isOfPartitions,
  putBth,
} from '../../transport/wire/bth.ts'
import { dethQkey, dethSrcQp, putDeth } from '../../transport/wire/extensions.ts'
import { answerPerformance } from '../../transport/wire/mad/performance.ts'
import { checkPacket } from '../../transport/wire/packet.ts'
import type { CoreQueue, SoftState } from './state.ts'

const UD_SEND_ONLY = opcodeNumber.UD_SEND_ONLY
const DETH_BYTES = 8
const HEADER_BYTES = BTH_BYTES + DETH_BYTES

const MGMT_CLASS_AT = madHeader.mgmtClass[0] >> 3

interface WaitingDatagram {
  readonly payload: Uint8Array
  readonly destination: MadAddress
  /** Open until the datagram is sent. */
  readonly flow: number
}

interface QueueOptions {
  readonly qpn: number
  /** The Q_Key of sent datagrams, and that which received ones must have. */
  readonly qkey: number
  /** Range of payload bytes of a datagram. */
  readonly minBytes: number
  readonly maxBytes: number
  /** Maximum number of datagrams that wait for room in the port. */
  readonly maxWaiting: number
  /** Charged for them, and for groups. Undefined: core itself, or a client in this process. */
  readonly account: Account | undefined
  /** Called with a copy of each received payload, by `poll` of the device. */
  readonly receive: (payload: Uint8Array, from: MadAddress) => void
}

const NO_GID = new Uint8Array(16)

/** Bytes charged for a waiting datagram in addition to its payload. */
const DATAGRAM_OVERHEAD = 512

/** A copy of a GID; or `last`, if it is equal. */
const copyOf = (gid: Uint8Array, last: Uint8Array): Uint8Array => (isSameAddress(gid, last) ? last : gid.slice())

class DatagramQueue implements CoreQueue {
  readonly device: SoftState
  readonly options: QueueOptions
  readonly #waiting: WaitingDatagram[] = []
  #psn = 0
  // GIDs of the last received datagram; the next one shares them if they are equal
  #localGid: Uint8Array = new Uint8Array(16)
  #remoteGid: Uint8Array = new Uint8Array(16)
  #isClosed = false

  constructor(device: SoftState, options: QueueOptions) {
    this.device = device
    this.options = options
    device.coreQueues.byNumber.set(options.qpn, this)
  }

  get qpn(): number {
    return this.options.qpn
  }

  get sqPsn(): number {
    return this.#psn
  }

  send(payload: Uint8Array, destination: MadAddress): boolean {
    const { minBytes, maxBytes, maxWaiting, account } = this.options
    if (payload.length < minBytes || payload.length > maxBytes)
      throw new Error(
        `a datagram of queue pair ${this.qpn} has ${minBytes} to ${maxBytes} bytes, not ${payload.length}`,
      )
    const charged = payload.length + DATAGRAM_OVERHEAD
    if (this.#isClosed || this.#waiting.length >= maxWaiting || !mayChargeMemory(account, charged)) return false
    try {
      this.#waiting.push({ payload, destination, flow: this.device.paths.openDatagram(destination, this.qpn) })
      this.device.coreQueues.waiting++
      return true
    } catch (error) {
      releaseMemory(account, charged)
      // the port cannot send to this address, or there is no route
      if (error instanceof RangeError || error instanceof SystemError) return false
      throw error
    }
  }

  close(): void {
    this.#isClosed = true
    const { coreQueues, port } = this.device
    for (const { flow } of this.#waiting) port.closeFlow(flow)
    this.#dequeue(this.#waiting.length)
    coreQueues.byNumber.delete(this.qpn)
  }

  /** Removes the oldest waiting datagrams. */
  #dequeue(count: number): void {
    for (const { payload } of this.#waiting.splice(0, count))
      releaseMemory(this.options.account, payload.length + DATAGRAM_OVERHEAD)
    this.device.coreQueues.waiting -= count
  }

  transmit(): void {
    const { port, releasedFlows } = this.device
    const { counters } = this.device.engine()
    const { qpn, qkey } = this.options
    let sent = 0
    for (const { payload, destination, flow } of this.#waiting) {
      const pad = -payload.length & 3
      const bytes = HEADER_BYTES + payload.length + pad + ICRC_BYTES
      const at = port.reserve(bytes)
      if (at < 0) break
      const { view, bytes: memory } = port.arena
      const { pkey, qpn: destQpn } = destination
      putBth(view, at, UD_SEND_ONLY, pad << BTH_PAD_SHIFT, pkey, destQpn, (this.#psn | BTH_ACKREQ) >>> 0)
      putDeth(view, at + BTH_BYTES, qkey, qpn)
      memory.set(payload, at + HEADER_BYTES)
      memory.fill(0, at + HEADER_BYTES + payload.length, at + bytes - ICRC_BYTES)
      port.commit(at, bytes, 1, bytes, flow)
      counters.sentPackets++
      if (destQpn === MULTICAST_QPN) counters.multicastSent++
      this.#psn = psnAdd(this.#psn, 1)
      releasedFlows.push(flow)
      sent++
    }
    this.#dequeue(sent)
  }

  onPacket(arena: Arena, at: number, length: number, from: FlowAddress): void {
    const { counters } = this.device.engine()
    const { qkey, minBytes, maxBytes, receive } = this.options
    const { view } = arena
    const deth = at + BTH_BYTES
    const isDatagram =
      checkPacket(view, at, length) === 0 && bthVersion(view, at) === 0 && bthOpcode(view, at) === UD_SEND_ONLY
    const payloadBytes = isDatagram ? length - HEADER_BYTES - bthPadCount(view, at) - ICRC_BYTES : -1
    if (payloadBytes < minBytes || payloadBytes > maxBytes) {
      counters.dropped++
      return
    }
    const pkey = bthPkey(view, at)
    if (!isOfPartitions(this.device.pkeys, pkey)) {
      counters.pkeyViolations++
      counters.dropped++
      return
    }
    if (dethQkey(view, deth) !== qkey) {
      counters.qkeyViolations++
      counters.dropped++
      return
    }
    counters.receivedPackets++
    const start = at + HEADER_BYTES
    const { lids, localGid, remoteGid } = this.device.paths.ends(from)
    this.#localGid = copyOf(localGid, this.#localGid)
    this.#remoteGid = copyOf(remoteGid, this.#remoteGid)
    const payload = payloadBytes <= MAD_BYTES ? smallBytes(payloadBytes) : new Uint8Array(payloadBytes)
    payload.set(arena.bytes.subarray(start, start + payloadBytes))
    receive(payload, {
      localGid: this.#localGid,
      remoteGid: this.#remoteGid,
      ...(lids && { lids }),
      qpn: dethSrcQp(view, deth),
      pkey,
      flowLabel: from.flowLabel,
      trafficClass: from.trafficClass,
      hopLimit: from.hopLimit,
    })
  }
}

/** Queue pair 0 or 1. */
class ManagementQueue extends DatagramQueue implements ManagementPort {
  /**
   * What queue pair 0 sends, or goes to a LID that no port of a device has, is the subnet's matter, and so is what is
   * for subnet administration: the subnet's own manager may be at a port (services/subnet-client).
   */
  override send(payload: Uint8Array, destination: MadAddress): boolean {
    const { lids, qpn, pkey, localGid, remoteGid, hopLimit } = destination
    const subnet = this.device.fabric?.subnet
    const isOfSubnet = this.qpn === SMI_QPN
    if (lids === undefined || subnet === undefined) return isOfSubnet ? false : super.send(payload, destination)
    const isForManager =
      payload[MGMT_CLASS_AT] === MadClass.SUBNET_ADMINISTRATION && lids.remote === this.device.fabric?.smLid
    if (!isOfSubnet && !isForManager && subnet.reached(lids.remote).length > 0) return super.send(payload, destination)
    const { local: slid, remote: dlid, sl, isGlobal } = lids
    const grh = isGlobal && { grh: { source: localGid, destination: remoteGid, hopLimit } }
    subnet.send(payload, { slid, dlid, sl, sourceQpn: this.qpn, destQpn: qpn, qkey: this.options.qkey, pkey, ...grh })
    return true
  }

  /** Queue pair 0 receives on VL 15 only (IBA 3.5.7): a program's datagram to it is no management. */
  override onPacket(arena: Arena, at: number, length: number, from: FlowAddress): void {
    if (this.qpn === SMI_QPN) this.device.engine().counters.dropped++
    else super.onPacket(arena, at, length, from)
  }

  onManagement(mad: Uint8Array, { slid, dlid, sl, sourceQpn, pkey, grh }: ManagementPath): void {
    this.options.receive(mad, {
      localGid: grh?.destination ?? NO_GID,
      remoteGid: grh?.source ?? NO_GID,
      lids: { local: dlid, remote: slid, sl, isGlobal: grh !== undefined },
      qpn: sourceQpn,
      pkey,
      flowLabel: 0,
      trafficClass: 0,
      hopLimit: grh?.hopLimit ?? 0,
    })
  }

  answer(mad: Uint8Array): Uint8Array | undefined {
    const { port, linkDowned, engine } = this.device
    const counters = () => counterValues('counters', engine().counters, { ...port.counters, linkDowned })
    return answerPerformance(mad, { numbers: [1], counters })
  }
}

/** Opens queue pair 1 (GSI), or 0 (SMI). Throws CallError EBUSY if it is in use. */
export const openManagement = (
  device: SoftState,
  receive: (mad: Uint8Array, from: MadAddress) => void,
  qpn = GSI_QPN,
): ManagementPort => {
  if (device.coreQueues.byNumber.has(qpn) || device.qpns.rowOf(qpn) >= 0)
    throw callError.EBUSY`queue pair ${qpn} of port 1 is in use`
  const length = { minBytes: MAD_BYTES, maxBytes: MAD_BYTES }
  return new ManagementQueue(device, {
    qpn,
    qkey: qpn === GSI_QPN ? GSI_QKEY : 0,
    ...length,
    maxWaiting: 4096,
    account: undefined,
    receive,
  })
}

/** Multicast LID of memberships: RoCE has no LIDs. */
const MLID = 0

/** A queue pair for datagrams of up to `mtu` bytes, which can join multicast groups. */
class MulticastQueue extends DatagramQueue implements DatagramPort {
  get mtu(): number {
    return this.options.maxBytes
  }

  /** `Groups` knows a queue pair of a core client by its negated QPN. */
  join(gid: Uint8Array): void {
    this.device.groups.attach(-this.qpn, gid, MLID, this.options.account)
  }

  leave(gid: Uint8Array): void {
    this.device.groups.detach(-this.qpn, gid, MLID)
  }

  override close(): void {
    super.close()
    this.device.groups.detachAll(-this.qpn)
    this.device.qpns.free(this.qpn)
  }
}

/** Opens a queue pair with a QPN of its own for IP over the device. `mtu`: the port's active MTU, bytes. */
export const openDatagrams = (
  device: SoftState,
  mtu: number,
  qkey: number,
  account: Account | undefined,
  receive: (payload: Uint8Array, from: MadAddress) => void,
): DatagramPort => {
  const bytes = { minBytes: 0, maxBytes: mtu }
  return new MulticastQueue(device, { qpn: device.qpns.take(), qkey, ...bytes, maxWaiting: 256, account, receive })
}
