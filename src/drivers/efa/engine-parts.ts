/*
 * What the parts of an engine (delivery.ts, srd/) see of it and of each other, also of another device's.
 */

import type { RequestTaps } from '../../core/driver-contract.ts'
import type { Bytes } from '../../core/memory/address-space.ts'
import type { Device } from '../../core/model.ts'
import type { EfaStatus } from '../../spec/drivers/efa-queues.ts'
import type { Memory } from '../../transport/engine/types.ts'
import type { Port } from '../../transport/phy/port.ts'
import type { Receive } from './requests.ts'
import type { CqObject, EfaState, Element, Pair, Peer, QueuePair, Request, Source } from './state.ts'
import type { EfaTorment } from './torment.ts'

/** Delivery, for the others. A message without a receive: WAIT. */
interface DeliveryPart {
  find(qpn: number, isReliable: boolean, qkey: number): QueuePair | undefined
  gatherInto(request: Request, offset: number, length: number): EfaStatus
  countPacket(sender: EngineParts, bytes: number): void
  refuseRdma(qp: QueuePair, sourceText: string, access: number, range: Element): EfaStatus
  takeMessage(
    qp: QueuePair,
    bytes: Bytes,
    at: number,
    length: number,
    operation: number,
    imm: number | undefined,
    source: Source,
  ): number
  takeImmediate(qp: QueuePair, length: number, imm: number, source: Source): number
  takeDatagram(bytes: Bytes, length: number, qpn: number, qkey: number, imm: number | undefined, source: Source): void
}

export interface EngineParts {
  readonly state: EfaState
  readonly device: () => Device<EfaState>
  /** The programs' memory. */
  readonly memory: Memory
  /** For the range of a peer, until the next one. */
  readonly range: Element
  readonly taps: RequestTaps | undefined
  readonly torment: EfaTorment | undefined
  readonly port: Port
  readonly scratch: Bytes
  readonly counts: Record<string, number>
  readonly mtu: number
  readonly now: number
  readonly receive: Receive
  readonly peers: ReadonlyMap<string, Peer>
  readonly pairs: Set<Pair>
  readonly reading: Set<Request>
  readonly delivery: DeliveryPart
  readonly sending: { pairOf(qp: QueuePair, peer: Peer, qpn: number): Pair }
  readonly receiving: {
    refuse(
      peer: Peer,
      qpn: number,
      sourceQpn: number,
      epoch: number,
      psn: number,
      status: number,
      message: number,
    ): void
  }
  /** Microseconds after which a request without receive is tried again. */
  notReadyDelay(qp: QueuePair): number
  closePeer(peer: Peer): void
  commit(at: number, bytes: number, peer: Peer): void
  /** Ends a send with this status. */
  end(request: Request, status: number): void
  /** The send found no receive at `destination`. Returns WAIT, or the status with which it fails. */
  wait(request: Request, destination: QueuePair): number
  /** The rest of a long READ or WRITE is executed by later polls. Returns WAIT. */
  continueLater(request: Request): number
  tapCompleted(
    qp: QueuePair,
    cq: CqObject,
    at: number,
    status: number,
    opcode: number,
    bytes: number,
    sourceQpn: number,
  ): void
}
