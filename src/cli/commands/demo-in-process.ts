/*
 * The demo without programs and without native code: two queue pairs of one device in this process.
 *
 * Only the programs are simulated: calls pass through core to the rxe driver, work requests are written into rings in
 * the layout of rdma-core's rxe provider, and the engine builds their packets. Rings and memory regions are buffers of
 * this process.
 */

import { identityOf } from '../../assembly/host-identity.ts'
import { closeContext, createCore, openContext } from '../../core/devices/registry.ts'
import { invokeNow } from '../../core/dispatch/invoke.ts'
import { createLocalSpace } from '../../core/memory/local-space.ts'
import { findableMemory, type MappedChunk } from '../../core/memory/mappable-memory.ts'
import { mappedRings } from '../../core/memory/rings.ts'
import type { Caller, Context } from '../../core/model.ts'
import { defaultDevice } from '../../daemon/devices/device-spec.ts'
import type { RingsContext } from '../../drivers/rings/context.ts'
import { createRxeDevice, type RxeDevice } from '../../drivers/rxe/device.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { Mr } from '../../spec/classes/mr.ts'
import { Pd } from '../../spec/classes/pd.ts'
import { RcQp } from '../../spec/classes/qp/rc_qp.ts'
import { RecvWqe, RingHeader, RingSge, SendWqe, Wc } from '../../spec/drivers/mapped-rings.ts'
import { AccessFlags, Mtu, nameIn, QpState } from '../../spec/enums.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../spec/work.ts'
import { packetText } from '../../tools/trace/packets.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../transport/phy/memory.ts'
import { addTap, forEachPacket } from '../../transport/phy/tap.ts'
import { plainArena } from '../../transport/wire/arena.ts'
import { blank, heading, line, paragraph } from '../demo-format.ts'

/** Length of the message. */
const BYTES = 2000
/** Upper bound on the polls that an exchange of this demo needs. */
const MAX_POLLS = 1000

/** One of the two simulated programs. */
interface Endpoint {
  readonly context: Context
  readonly caller: Caller
  /** Its registered memory, with address and lkey. */
  readonly buffer: Uint8Array
  readonly address: bigint
  readonly lkey: number
  /** Handle and number of its queue pair. */
  readonly qp: number
  readonly qpn: number
  /** Rings. */
  readonly send: MappedChunk
  readonly receive: MappedChunk
  readonly completions: MappedChunk
}

/** Where a ring is to be mapped: an output of `create` (struct mminfo of rdma-core). */
type RingLocation = { readonly offset: bigint }
const ringOffset = (out: object, name: string): bigint => (out as Record<string, RingLocation>)[name]!.offset

const createEndpoint = ({ device }: RxeDevice): Endpoint => {
  const rings = findableMemory()
  const context = openContext(device, { isOpened: true })
  context.state = { rings: mappedRings(rings) } satisfies RingsContext
  const memory = createLocalSpace()
  const neverCopied = (): never => {
    throw new Error('a call in this process has no bytes')
  }
  const caller: Caller = { memory, copyIn: neverCopied, copyOut: neverCopied, descriptor: () => undefined }
  const buffer = new Uint8Array(BYTES)
  const start = BigInt(memory.add(buffer))
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object ?? 0
  const access = AccessFlags.values.LOCAL_WRITE
  const region = { pd, start, iova: start, length: BigInt(BYTES), access }
  const { lkey } = invokeNow(context, Mr, 'create', 0, region, caller).out
  const cq = invokeNow(context, Cq, 'create', 0, { cqe: 4, userHandle: 1n, compVector: 0 }, caller)
  const cap = { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
  const queues = { sendCq: cq.object ?? 0, recvCq: cq.object ?? 0 }
  const qp = invokeNow(context, RcQp, 'create', 0, { pd, ...queues, cap, userHandle: 2n }, caller)
  return {
    context,
    caller,
    buffer,
    address: start,
    lkey,
    qp: qp.object ?? 0,
    qpn: qp.out.qpNum,
    send: rings.at(ringOffset(qp.out, 'sendQueue')),
    receive: rings.at(ringOffset(qp.out, 'recvQueue')),
    completions: rings.at(ringOffset(cq.out, 'queue')),
  }
}

/** The entry of the GID table that has the address as RoCEv2. */
const GID_INDEX = 1

/** Moves a queue pair to RTS, connected to that of `peer`. */
const connect = (endpoint: Endpoint, peer: Endpoint, dgid: Uint8Array): void => {
  const modify = (args: Parameters<typeof invokeNow<typeof RcQp, 'modify'>>[4]): void => {
    invokeNow(endpoint.context, RcQp, 'modify', endpoint.qp, args, endpoint.caller)
  }
  const route = { flowLabel: 0, hopLimit: 64, trafficClass: 0, sl: 0, staticRate: 0, isGlobal: 1 }
  modify({ state: QpState.values.INIT, pkeyIndex: 0, port: 1, accessFlags: 0 })
  modify({
    state: QpState.values.RTR,
    address: { dgid, sgidIndex: GID_INDEX, port: 1, ...route },
    pathMtu: Mtu.values.MTU_1024,
    destQpn: peer.qpn,
    rqPsn: 0,
    maxDestRdAtomic: 1,
    minRnrTimer: 12, // 0.64 ms
  })
  // An ACK timeout of 67 ms (4.096 µs · 2^14), and rnrRetry without limit.
  modify({ state: QpState.values.RTS, timeout: 14, retryCnt: 7, rnrRetry: 7, sqPsn: 0, maxRdAtomic: 1 })
}

/** Writes an SGE for the whole buffer at `offset` of a ring. */
const putSge = ({ address, lkey }: Endpoint, view: DataView, offset: number): void => {
  view.setBigUint64(offset + RingSge.ADDRESS, address, true)
  view.setUint32(offset + RingSge.LENGTH, BYTES, true)
  view.setUint32(offset + RingSge.LKEY, lkey, true)
}

/** Advances the producer index (a word of the ring's header) from 0 to 1, for the first element of the ring. */
const produce = ({ words }: MappedChunk): void => {
  Atomics.store(words, RingHeader.PRODUCER >> 2, 1)
}

const postReceive = (endpoint: Endpoint): void => {
  const { view } = endpoint.receive
  view.setUint32(RingHeader.DATA + RecvWqe.DMA_NUM_SGE, 1, true)
  putSge(endpoint, view, RingHeader.DATA + RecvWqe.SGE)
  produce(endpoint.receive)
}

const postSend = (endpoint: Endpoint): void => {
  const { view } = endpoint.send
  const wqe = RingHeader.DATA
  view.setUint32(wqe + SendWqe.OPCODE, WrOpcode.values.SEND, true)
  view.setUint32(wqe + SendWqe.FLAGS, SendFlags.values.SIGNALED, true)
  view.setUint32(wqe + SendWqe.DMA_LENGTH, BYTES, true)
  view.setUint32(wqe + SendWqe.DMA_NUM_SGE, 1, true)
  putSge(endpoint, view, wqe + SendWqe.SGE)
  produce(endpoint.send)
}

/** Status and byte count of the only completion; undefined before it arrives. */
const completion = ({ completions: { view, words } }: Endpoint): string | undefined => {
  if (Atomics.load(words, RingHeader.PRODUCER >> 2) === 0) return undefined
  const status = view.getUint32(RingHeader.DATA + Wc.STATUS, true)
  return `status ${nameIn(WcStatus.values, status)}, ${view.getUint32(RingHeader.DATA + Wc.BYTE_LEN, true)} bytes`
}

/** Connects two queue pairs, sends a message, and prints its packets and the result. */
export const demoInProcess = async (): Promise<void> => {
  const link = createMemorySwitch({ arena: plainArena(memorySwitchBytes()) })
  const port = link.attach()
  const identity = identityOf(defaultDevice)
  const rxe = createRxeDevice(createCore(), { name: defaultDevice.name, identity, port, now: nowMicroseconds })
  const packets: string[] = []
  const untap = addTap(port, run => {
    if (run.direction !== 'sent') return
    forEachPacket(run, (offset, length) => packets.push(packetText(run.arena.bytes.slice(offset, offset + length))))
  })

  heading('1. Two queue pairs in one process')
  paragraph(
    `A device, ${defaultDevice.name} at ${defaultDevice.address}, was created in this process, and two contexts were opened on it, as two programs would. Each registers ${BYTES} bytes of memory and makes a queue pair; the queue pairs are connected, and one sends its bytes to the other.`,
  )
  const [sender, receiver] = [createEndpoint(rxe), createEndpoint(rxe)]
  connect(sender, receiver, identity.gids[GID_INDEX]!)
  connect(receiver, sender, identity.gids[GID_INDEX]!)
  sender.buffer.forEach((_, i) => {
    sender.buffer[i] = (i * 31) & 0xff
  })
  postReceive(receiver)
  postSend(sender)
  for (let polls = 0; polls < MAX_POLLS && !(completion(sender) && completion(receiver)); polls++)
    rxe.poll(nowMicroseconds())

  heading('2. The packets')
  for (const packet of packets) line(packet)
  blank()
  line(`sender:   ${completion(sender) ?? 'no completion'}`)
  line(`receiver: ${completion(receiver) ?? 'no completion'}`)
  const isEqual = Buffer.compare(sender.buffer, receiver.buffer) === 0
  line(`memory:   ${isEqual ? `all ${BYTES} bytes arrived` : 'the bytes differ'}`)
  untap()
  closeContext(sender.context)
  closeContext(receiver.context)
  if (!isEqual) throw new Error('the bytes that arrived differ from those that were sent')
}
