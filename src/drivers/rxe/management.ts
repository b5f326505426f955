/*
 * Queue pair 1 of a soft device as the MAD layer has it (IBA 3.5.7, 13.4): datagrams of 256 bytes, each a packet. No
 * rings, no requests, no completions: what comes is handed over, what goes waits in a short queue until the port has
 * room. Packets are as Linux sends them (test/fixtures/wire): AckReq is set, though nobody acknowledges a datagram.
 */
import type { MadAddress, ManagementPort } from '../../core/model.ts'
import type { FlowAddress } from '../../phy/port.ts'
import { counterValues } from '../../spec/counters.ts'
import { CallError } from '../../spec/errno.ts'
import { ICRC_BYTES } from '../../spec/wire/headers.ts'
import { GSI_QKEY, GSI_QPN, MAD_BYTES } from '../../spec/wire/mad.ts'
import { opcodeNumber } from '../../spec/wire/opcodes.ts'
import { isSameAddress } from '../../wire/address.ts'
import type { Arena } from '../../wire/arena.ts'
import { BTH_ACKREQ, BTH_BYTES, bthOpcode, bthPkey, bthVersion, putBth } from '../../wire/bth.ts'
import { dethQkey, dethSrcQp, putDeth } from '../../wire/extensions.ts'
import { checkPacket } from '../../wire/packet.ts'
import { flowAddress, noAddress, openPath } from './address/path.ts'
import { answerPerformance } from './performance.ts'
import type { ManagementQueue, RxeState } from './state.ts'

const UD_SEND_ONLY = opcodeNumber.UD_SEND_ONLY
const DETH_BYTES = 8
const HEADER_BYTES = BTH_BYTES + DETH_BYTES
const PACKET_BYTES = HEADER_BYTES + MAD_BYTES + ICRC_BYTES
const PSN_MASK = 0xff_ffff
/** Datagrams that wait for room in the port; more are lost, as any datagram may be. */
const MOST_WAITING = 4096

interface Waiting {
  readonly mad: Uint8Array
  readonly to: MadAddress
  readonly flow: number
}

/** A copy of an address, or the last one if it is the same: few peers send many datagrams. */
const copyOf = (address: Uint8Array, last: Uint8Array): Uint8Array =>
  isSameAddress(address, last) ? last : address.slice()

export class Management implements ManagementPort, ManagementQueue {
  readonly #device: RxeState
  readonly #receive: (mad: Uint8Array, from: MadAddress) => void
  readonly #waiting: Waiting[] = []
  #psn = 0
  /** Addresses of the last datagram. */
  #localGid: Uint8Array = new Uint8Array(16)
  #remoteGid: Uint8Array = new Uint8Array(16)

  /** Throws CallError EBUSY if queue pair 1 is somebody's. */
  constructor(device: RxeState, receive: (mad: Uint8Array, from: MadAddress) => void) {
    if (device.management !== undefined || device.qpns.rowOf(GSI_QPN) >= 0)
      throw new CallError('EBUSY', 'queue pair 1 of port 1 is in use')
    this.#device = device
    this.#receive = receive
    device.management = this
  }

  get isIdle(): boolean {
    return this.#waiting.length === 0
  }

  get sqPsn(): number {
    return this.#psn
  }

  send(mad: Uint8Array, to: MadAddress): boolean {
    if (mad.length !== MAD_BYTES) throw new Error(`a management datagram has ${MAD_BYTES} bytes, not ${mad.length}`)
    if (this.#waiting.length >= MOST_WAITING) return false
    const { remoteGid, flowLabel, trafficClass } = to
    try {
      const address = flowAddress(to.localGid, { ...noAddress, dgid: remoteGid, flowLabel, trafficClass })
      this.#waiting.push({ mad, to, flow: openPath(this.#device.port, address, 'management datagram') })
      return true
    } catch (error) {
      if (error instanceof CallError) return false
      throw error
    }
  }

  answer(mad: Uint8Array): Uint8Array | undefined {
    const { port, linkDowned, engine } = this.#device
    return answerPerformance(mad, () => counterValues('counters', engine().counters, { ...port.counters, linkDowned }))
  }

  close(): void {
    for (const { flow } of this.#waiting.splice(0)) this.#device.port.closeFlow(flow)
    if (this.#device.management === this) this.#device.management = undefined
  }

  transmit(): boolean {
    const { port, released } = this.#device
    let sent = 0
    for (const { mad, to, flow } of this.#waiting) {
      const at = port.reserve(PACKET_BYTES)
      if (at < 0) break
      const { view, bytes } = port.arena
      putBth(view, at, UD_SEND_ONLY, 0, to.pkey, to.qpn, (this.#psn | BTH_ACKREQ) >>> 0)
      putDeth(view, at + BTH_BYTES, GSI_QKEY, GSI_QPN)
      bytes.set(mad, at + HEADER_BYTES)
      port.commit(at, PACKET_BYTES, 1, PACKET_BYTES, flow)
      this.#device.engine().counters.sentPackets++
      this.#psn = (this.#psn + 1) & PSN_MASK
      released.push(flow)
      sent++
    }
    this.#waiting.splice(0, sent)
    return sent > 0
  }

  onPacket(arena: Arena, at: number, length: number, from: FlowAddress): void {
    const { counters } = this.#device.engine()
    const { view } = arena
    const deth = at + BTH_BYTES
    if (
      length !== PACKET_BYTES ||
      checkPacket(view, at, length) !== 0 ||
      bthVersion(view, at) !== 0 ||
      bthOpcode(view, at) !== UD_SEND_ONLY
    ) {
      counters.dropped++
      return
    }
    if (dethQkey(view, deth) !== GSI_QKEY) {
      counters.qkeyViolations++
      counters.dropped++
      return
    }
    counters.receivedPackets++
    const start = at + HEADER_BYTES
    this.#localGid = copyOf(from.destination, this.#localGid)
    this.#remoteGid = copyOf(from.source, this.#remoteGid)
    this.#receive(arena.bytes.slice(start, start + MAD_BYTES), {
      localGid: this.#localGid,
      remoteGid: this.#remoteGid,
      qpn: dethSrcQp(view, deth),
      pkey: bthPkey(view, at),
      flowLabel: from.flowLabel,
      trafficClass: from.trafficClass,
      hopLimit: from.hopLimit,
    })
  }
}
