/*
 * The demo without programs and without native code: two queue pairs of one device in this process.
 *
 * Everything except the programs is real: calls pass through core to the rxe driver, work requests are in rings as
 * librxe writes them, and the engine builds their packets. Rings and buffers are ordinary buffers of this process.
 */

import { closeContext, createCore, openContext } from '../../core/devices/registry.ts'
import { invokeNow } from '../../core/dispatch/invoke.ts'
import { createLocalSpace } from '../../core/memory/local-space.ts'
import { findableMemory, type MappedChunk } from '../../core/memory/mappable-memory.ts'
import type { Caller, Context } from '../../core/model.ts'
import { defaultDevice } from '../../daemon/devices/device-spec.ts'
import { identityOf } from '../../drivers/rxe/address/host-identity.ts'
import type { RxeContext } from '../../drivers/rxe/context.ts'
import { createRxeDevice, type RxeDevice } from '../../drivers/rxe/device.ts'
import { mappedRings } from '../../drivers/rxe/rings/ring-memory.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../phy/memory.ts'
import { addTap, forEachPacket } from '../../phy/tap.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { Mr } from '../../spec/classes/mr.ts'
import { Pd } from '../../spec/classes/pd.ts'
import { RcQp } from '../../spec/classes/qp/rc_qp.ts'
import { RecvWqe, RingHeader, RingSge, SendWqe, Wc } from '../../spec/drivers/rxe-rings.ts'
import { AccessFlags, Mtu, QpState } from '../../spec/enums.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../spec/work.ts'
import { packetText } from '../../trace/packets.ts'
import { plainArena } from '../../wire/arena.ts'
import { blank, cut, heading, paragraph } from '../demo-format.ts'

const BYTES = 2000
/** Upper bound on the polls that an exchange of this demo needs. */
const MAX_TURNS = 1000

/** One of the two simulated programs. */
interface Side {
  readonly context: Context
  readonly caller: Caller
  readonly buffer: Uint8Array
  readonly address: bigint
  readonly key: number
  readonly qp: number
  readonly qpn: number
  readonly send: MappedChunk
  readonly receive: MappedChunk
  readonly completions: MappedChunk
}

type Queue = { readonly offset: bigint }
const queueOf = (out: object, name: string): bigint => (out as Record<string, Queue>)[name]!.offset

const createSide = ({ device }: RxeDevice): Side => {
  const rings = findableMemory()
  const context = openContext(device, { opened: true })
  context.state = { rings: mappedRings(rings) } satisfies RxeContext
  const memory = createLocalSpace()
  const none = (): never => {
    throw new Error('a call in this process has no bytes')
  }
  const caller: Caller = { memory, copyIn: none, copyOut: none, descriptor: () => undefined }
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
    key: lkey,
    qp: qp.object ?? 0,
    qpn: qp.out.qpNum,
    send: rings.at(queueOf(qp.out, 'sendQueue')),
    receive: rings.at(queueOf(qp.out, 'recvQueue')),
    completions: rings.at(queueOf(cq.out, 'queue')),
  }
}

const connect = (side: Side, other: Side, dgid: Uint8Array): void => {
  const modify = (args: Parameters<typeof invokeNow<typeof RcQp, 'modify'>>[4]): void => {
    invokeNow(side.context, RcQp, 'modify', side.qp, args, side.caller)
  }
  const route = { flowLabel: 0, hopLimit: 64, trafficClass: 0, sl: 0, staticRate: 0, isGlobal: 1 }
  modify({ state: QpState.values.INIT, pkeyIndex: 0, port: 1, accessFlags: 0 })
  modify({
    state: QpState.values.RTR,
    address: { dgid, sgidIndex: 1, port: 1, ...route },
    pathMtu: Mtu.values.MTU_1024,
    destQpn: other.qpn,
    rqPsn: 0,
    maxDestRdAtomic: 1,
    minRnrTimer: 12,
  })
  modify({ state: QpState.values.RTS, timeout: 14, retryCnt: 7, rnrRetry: 7, sqPsn: 0, maxRdAtomic: 1 })
}

const putSge = ({ address, key }: Side, view: DataView, at: number): void => {
  view.setBigUint64(at + RingSge.ADDRESS, address, true)
  view.setUint32(at + RingSge.LENGTH, BYTES, true)
  view.setUint32(at + RingSge.LKEY, key, true)
}

/** Sets the producer index: one element is written. */
const produce = ({ words }: MappedChunk): void => {
  Atomics.store(words, RingHeader.PRODUCER >> 2, 1)
}

const postReceive = (side: Side): void => {
  const { view } = side.receive
  view.setUint32(RingHeader.DATA + RecvWqe.DMA_NUM_SGE, 1, true)
  putSge(side, view, RingHeader.DATA + RecvWqe.SGE)
  produce(side.receive)
}

const postSend = (side: Side): void => {
  const { view } = side.send
  const at = RingHeader.DATA
  view.setUint32(at + SendWqe.OPCODE, WrOpcode.values.SEND, true)
  view.setUint32(at + SendWqe.FLAGS, SendFlags.values.SIGNALED, true)
  view.setUint32(at + SendWqe.DMA_LENGTH, BYTES, true)
  view.setUint32(at + SendWqe.DMA_NUM_SGE, 1, true)
  putSge(side, view, at + SendWqe.SGE)
  produce(side.send)
}

const statusName = (status: number): string =>
  Object.entries(WcStatus.values).find(([, value]) => value === status)?.[0] ?? String(status)

/** Status and byte count of the only completion; undefined before it arrives. */
const completion = ({ completions: { view, words } }: Side): string | undefined => {
  if (Atomics.load(words, RingHeader.PRODUCER >> 2) === 0) return undefined
  const status = view.getUint32(RingHeader.DATA + Wc.STATUS, true)
  return `status ${statusName(status)}, ${view.getUint32(RingHeader.DATA + Wc.BYTE_LEN, true)} bytes`
}

/** Connects two queue pairs, sends a message, and prints its packets and the result. */
export const demoInside = async (): Promise<void> => {
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
  const [from, to] = [createSide(rxe), createSide(rxe)]
  connect(from, to, identity.gids[1]!)
  connect(to, from, identity.gids[1]!)
  from.buffer.forEach((_, i) => {
    from.buffer[i] = (i * 31) & 0xff
  })
  postReceive(to)
  postSend(from)
  for (let turn = 0; turn < MAX_TURNS && !(completion(from) && completion(to)); turn++) rxe.poll(nowMicroseconds())

  heading('2. The packets')
  for (const packet of packets) cut(packet)
  blank()
  cut(`sender:   ${completion(from) ?? 'no completion'}`)
  cut(`receiver: ${completion(to) ?? 'no completion'}`)
  const equal = Buffer.compare(from.buffer, to.buffer) === 0
  cut(`memory:   ${equal ? `all ${BYTES} bytes arrived` : 'the bytes differ'}`)
  untap()
  closeContext(from.context)
  closeContext(to.context)
  if (!equal) throw new Error('the bytes that arrived differ from those that were sent')
}
