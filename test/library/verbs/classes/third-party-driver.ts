/*
 * A third-party driver, made with the exports of `userdma/core` and `userdma/spec`. It has the classes that no driver
 * of the project has.
 *
 * A sent frame is looped back to the queue pair of the first rule, by priority, that matches its headers. If the queue
 * pair has a table of work queues, the last byte of the destination selects the work queue. Rings have the layout of
 * rxe. Only inline sends are supported. Tags of tag matching are stored, but nothing is matched.
 */
import {
  addParent,
  affiliate,
  type CallContext,
  type Core,
  type CoreObject,
  completed,
  type Device,
  driverClass,
  findObject,
  type MappedChunk,
  mappedMemoryOf,
  raiseObjectEvent,
  register,
} from '../../../../src/core/index.ts'
import {
  AsyncEventType,
  type Attributes,
  Classes,
  callError,
  DeviceAttributes,
  ExtendedDeviceAttributes,
  type FlowSpec,
  FlowSpecType,
  type FlowType,
  type LinkName,
  MmapInfo,
  Mtu,
  optional,
  PortAttributes,
  type QpClassName,
  QpQueues,
  QpState,
  QpTypes,
  type RecordOf,
  RecvWqe,
  RingHeader,
  RingSge,
  record,
  SendWqe,
  the,
  Wc,
  WcOpcode,
  WqState,
  zeroRecord,
} from '../../../../src/spec/index.ts'

// ---- rings of 8 elements, of which 7 are used ----

const SLOTS = 8
/** Log2 of the bytes of a send and of a receive request. */
const SEND_LOG2 = 9
const RECEIVE_LOG2 = 7
interface Ring {
  readonly chunk: MappedChunk
  /** Log2 of the bytes of an element. */
  readonly log2: number
}
const ringIn = ({ context }: CallContext, log2: number): Ring => {
  const chunk = mappedMemoryOf(context).allocate(RingHeader.DATA + (SLOTS << log2))
  chunk.view.setUint32(chunk.at + RingHeader.LOG2_ELEMENT, log2, true)
  chunk.view.setUint32(chunk.at + RingHeader.INDEX_MASK, SLOTS - 1, true)
  return { chunk, log2 }
}
const mmapInfoOf = ({ chunk }: Ring) => ({ offset: BigInt(chunk.offset), size: chunk.length })
const indexAt = ({ chunk }: Ring, at: number): number => chunk.view.getUint32(chunk.at + at, true)
const elementAt = ({ chunk, log2 }: Ring, index: number): number => chunk.at + RingHeader.DATA + (index << log2)
/** Consumes the oldest request and returns its offset in bytes; -1 if the ring is empty. */
const takeRequest = (ring: Ring): number => {
  const oldest = indexAt(ring, RingHeader.CONSUMER)
  if (oldest === indexAt(ring, RingHeader.PRODUCER)) return -1
  ring.chunk.view.setUint32(ring.chunk.at + RingHeader.CONSUMER, (oldest + 1) % SLOTS, true)
  return elementAt(ring, oldest)
}

/** Drops posted requests: sets the indices of both the device and the program to 0. */
const clear = ({ chunk }: Ring): void => {
  for (const at of [RingHeader.PRODUCER, RingHeader.CONSUMER]) chunk.view.setUint32(chunk.at + at, 0, true)
}

const complete = (cq: CoreObject<Ring>, id: bigint, opcode: number, bytes: number): void => {
  const { chunk } = cq.state
  const newest = indexAt(cq.state, RingHeader.PRODUCER)
  const at = elementAt(cq.state, newest)
  chunk.view.setBigUint64(at + Wc.WR_ID, id, true)
  chunk.view.setUint32(at + Wc.STATUS, 0, true)
  chunk.view.setUint32(at + Wc.OPCODE, opcode, true)
  chunk.view.setUint32(at + Wc.BYTE_LEN, bytes, true)
  chunk.view.setUint32(chunk.at + RingHeader.PRODUCER, (newest + 1) % SLOTS, true)
  if (cq.events !== undefined) completed(cq.events, false)
}

// ---- the state of objects ----

interface Receives {
  readonly ring: Ring
  readonly cq: CoreObject<Ring>
  state: number
}
interface Wq extends Receives {
  flags: number
}
interface Qp extends Receives {
  readonly sends: Ring
  readonly sendCq: CoreObject<Ring>
  readonly table: readonly CoreObject<Wq>[] | undefined
}
interface Rule {
  readonly type: number
  readonly priority: number
  readonly port: number
  readonly specs: RecordOf<typeof FlowSpec>[]
  readonly qp: CoreObject<Qp>
  readonly counters: CoreObject<bigint[]> | undefined
}
interface Tags {
  readonly cq: CoreObject<Ring>
  readonly tags: Map<number, bigint>
  unexpected: number
  limit: number
  maxWr: number
}
interface State {
  readonly rules: Set<Rule>
  nextTag: number
}
/** The numbers of an enumeration. */
type ValueOf<E extends { readonly values: object }> = E['values'][keyof E['values']]
const stateOf = ({ device }: CallContext): State => device.state as State

// ---- frames ----

/** Offset in bytes of the field that a spec matches, in a frame without VLAN tag and IPv4 options. */
const headerOffsets: Readonly<Record<number, number>> = {
  [FlowSpecType.values.ETH]: 0,
  [FlowSpecType.values.IPV4]: 14,
  [FlowSpecType.values.UDP]: 34,
  [FlowSpecType.values.VXLAN_TUNNEL]: 46,
}

const matches = (frame: Uint8Array, { specs }: Rule): boolean =>
  specs.every(({ type, value, mask }) =>
    mask.every((bits, i) => (((frame[headerOffsets[type] + i] ?? 0) ^ value[i]) & bits) === 0),
  )

const receive = ({ caller }: CallContext, object: CoreObject<Receives>, frame: Uint8Array): void => {
  const { ring, cq } = object.state
  const at = takeRequest(ring)
  if (at < 0) return
  const { view } = ring.chunk
  const sge = at + RecvWqe.SGE
  if (view.getUint32(sge + RingSge.LENGTH, true) < frame.length) {
    fail(object)
    return
  }
  const [lo, hi] = [RingSge.ADDRESS, RingSge.ADDRESS + 4].map(word => view.getUint32(sge + word, true))
  const source = { address: 0, bytes: frame, view: new DataView(frame.buffer) }
  const { length } = frame
  // The frame is one piece, so its length is also the stride and the total length.
  caller.memory.write(hi, lo, source, 0, length, length, length)
  complete(cq, view.getBigUint64(at + RecvWqe.WR_ID, true), WcOpcode.values.RECV, frame.length)
}

/** A frame longer than the receive buffer moves the queue to its error state. */
const fail = (object: CoreObject<Receives>): void => {
  const isWorkQueue = object.class.name === 'wq'
  object.state.state = isWorkQueue ? WqState.values.ERR : QpState.values.ERR
  raiseObjectEvent(object, isWorkQueue ? AsyncEventType.values.WQ_FATAL : AsyncEventType.values.QP_FATAL)
}

const deliver = (call: CallContext, frame: Uint8Array): void => {
  const rules = [...stateOf(call).rules].sort((a, b) => a.priority - b.priority)
  const rule = rules.find(one => matches(frame, one))
  if (rule === undefined) return
  if (rule.counters !== undefined) {
    rule.counters.state[0]++
    rule.counters.state[1] += BigInt(frame.length)
  }
  const { table } = rule.qp.state
  receive(call, table === undefined ? rule.qp : table[frame[5] % table.length], frame)
}

// ---- classes ----

const { raw_packet_qp, wq, rwq_ind_table, flow, counters, dm, tm_srq, cq, mr, pd, ah } = Classes
/** The output attribute of `create` that describes the ring's mapping. */
const withQueue = { create: { out: { queue: optional(record(0x8000, MmapInfo)) } } }

/** An answer in which every attribute is 0. */
const zeros = (attributes: Attributes) =>
  Object.fromEntries(
    Object.entries(attributes).map(([name, { type }]) => [name, type.kind === 'record' ? zeroRecord(type.fields) : 0]),
  )

/** Queue pairs of any type: states, and a doorbell. */
const qpClass = <N extends QpClassName>(name: N) =>
  driverClass<typeof raw_packet_qp, Qp, typeof QpQueues>(
    Classes[name] as unknown as typeof raw_packet_qp,
    {
      create(call, object, { sendCq, recvCq, cap, rwqIndTable, userHandle }) {
        affiliate(object, userHandle)
        const [sends, ring] = [ringIn(call, SEND_LOG2), ringIn(call, RECEIVE_LOG2)]
        const table = rwqIndTable?.state as Qp['table']
        const queues = { sends, ring, sendCq: sendCq as CoreObject<Ring>, cq: recvCq as CoreObject<Ring>, table }
        object.state = { ...queues, state: QpState.values.RESET }
        const receiveQueue = table === undefined ? { recvQueue: mmapInfoOf(ring) } : {}
        return { cap: { ...cap, maxInlineData: 128 }, qpNum: 100, sendQueue: mmapInfoOf(sends), ...receiveQueue }
      },
      query: (_call, { state: { state } }) => ({ ...zeros(Classes[name].methods.query.out), state }) as never,
      modify(_call, { state }, args) {
        state.state = args.state ?? state.state
        if (args.state === QpState.values.RESET) for (const ring of [state.sends, state.ring]) clear(ring)
        return {}
      },
      postSend(call, { state }) {
        const { sends, sendCq } = state
        for (let at = takeRequest(sends); at >= 0; at = takeRequest(sends)) {
          const { view, bytes } = sends.chunk
          const start = at + SendWqe.SGE
          const frame = bytes.slice(start, start + view.getUint32(at + SendWqe.DMA_LENGTH, true))
          complete(sendCq, view.getBigUint64(at + SendWqe.WR_ID, true), WcOpcode.values.SEND, 0)
          deliver(call, frame)
        }
        return { badWr: 0 }
      },
    },
    QpQueues,
  )

const wqClass = driverClass<typeof wq, Wq, typeof withQueue>(
  wq,
  {
    create(call, object, { cq: receiveCq, maxSge, flags = 0, userHandle }) {
      affiliate(object, userHandle)
      const ring = ringIn(call, RECEIVE_LOG2)
      object.state = { ring, cq: receiveCq as CoreObject<Ring>, state: 0, flags }
      return { maxWr: SLOTS - 1, maxSge, wqNum: 7, queue: mmapInfoOf(ring) }
    },
    query: (_call, { state: { state, flags } }) => ({
      state: state as ValueOf<typeof WqState>,
      maxWr: SLOTS - 1,
      maxSge: 1,
      flags,
    }),
    modify(_call, { state }, { state: newState, curState, flags = 0, flagsMask = 0 }) {
      if (curState !== undefined && curState !== state.state)
        throw callError.EINVAL`${the.method('wq.modify')}: ${the.attribute('curState')}: it is in state ${state.state}`
      state.state = newState ?? state.state
      if (newState === WqState.values.RESET) clear(state.ring)
      state.flags = (state.flags & ~flagsMask) | (flags & flagsMask)
      return {}
    },
  },
  withQueue,
)

const tableClass = driverClass<typeof rwq_ind_table, readonly CoreObject<Wq>[]>(rwq_ind_table, {
  create({ context }, object, { queues }) {
    object.state = queues.map(one => findObject(context, 'wq', one.wq, 'rwq_ind_table.create') as CoreObject<Wq>)
    for (const one of new Set(object.state)) addParent(object, one)
    return { tableNum: 3 }
  },
  query: (_call, { state }) => ({ queues: state.map(({ handle }) => ({ wq: handle })) }),
  destroy: () => ({}),
})

const flowClass = driverClass<typeof flow, Rule>(flow, {
  create(call, object, { rawQp, udQp, counters: counterSet, type, priority, port, specs }) {
    const unknownSpec = specs.find(spec => headerOffsets[spec.type] === undefined)
    if (unknownSpec !== undefined)
      throw callError.EOPNOTSUPP`${the.method('flow.create')}: no specs of type ${unknownSpec.type}`
    const qp = (rawQp ?? udQp) as CoreObject<Qp>
    object.state = { type, priority, port, specs, qp, counters: counterSet as CoreObject<bigint[]> | undefined }
    stateOf(call).rules.add(object.state)
    return {}
  },
  query: (_call, { state: { type, priority, port, specs } }) => ({
    type: type as ValueOf<typeof FlowType>,
    priority,
    port,
    specs,
  }),
  destroy(call, { state }) {
    stateOf(call).rules.delete(state)
    return {}
  },
})

const tagClass = driverClass<typeof tm_srq, Tags, typeof withQueue>(
  tm_srq,
  {
    create(call, object, { cq: receiveCq, maxWr, maxSge, limit, userHandle }) {
      affiliate(object, userHandle)
      object.state = { cq: receiveCq as CoreObject<Ring>, tags: new Map(), unexpected: 0, limit, maxWr }
      return { maxWr, maxSge, queue: mmapInfoOf(ringIn(call, RECEIVE_LOG2)) }
    },
    query: (_call, { state: { limit, maxWr } }) => ({ maxWr, maxSge: 1, limit }),
    modify(_call, { state }, { limit = state.limit }) {
      state.limit = limit
      return {}
    },
    tagAdd(call, { state }, { wrId, tag, mask, sgList, unexpected }) {
      const handle = stateOf(call).nextTag++
      state.tags.set(handle, tag & mask)
      state.unexpected = unexpected ?? state.unexpected
      complete(
        state.cq,
        wrId,
        WcOpcode.values.TM_ADD,
        sgList.reduce((sum, { length }) => sum + length, 0),
      )
      return { handle }
    },
    tagDel(_call, { state }, { wrId, handle }) {
      if (!state.tags.delete(handle)) throw callError.ENOENT`${the.method('tm_srq.tagDel')}: there is no tag ${handle}`
      complete(state.cq, wrId, WcOpcode.values.TM_DEL, 0)
      return {}
    },
    tagSync(_call, { state }, { wrId, unexpected = 0 }) {
      state.unexpected = unexpected
      complete(state.cq, wrId, WcOpcode.values.TM_SYNC, unexpected)
      return {}
    },
  },
  withQueue,
)

const others = [
  driverClass<typeof cq, Ring, typeof withQueue>(
    cq,
    {
      create(call, object, { userHandle }) {
        affiliate(object, userHandle)
        object.state = ringIn(call, Wc.ELEMENT_SHIFT)
        return { cqe: SLOTS - 1, queue: mmapInfoOf(object.state) }
      },
    },
    withQueue,
  ),
  driverClass<typeof dm, { length: bigint; alignment: number }>(dm, {
    create(_call, object, args) {
      if (args.length > 0x10000n)
        throw callError.ENOMEM`${the.method('dm.create')}: ${args.length} bytes, there are 65536`
      object.state = args
      return {}
    },
    query: (_call, { state }) => state,
    destroy: () => ({}),
  }),
  driverClass<typeof counters, bigint[]>(counters, {
    create(_call, object) {
      object.state = [0n, 0n]
      return {}
    },
    /** Values: packets, bytes, and the flags of the query. */
    query: (_call, { state }, { flags = 0 }) => ({ values: [...state, BigInt(flags)].map(value => ({ value })) }),
    destroy: () => ({}),
  }),
  driverClass(ah, { create: () => ({}), modify: () => ({}) }),
  /** Regions of any kind; their keys are not checked. */
  driverClass<typeof mr, { length: bigint; iova: bigint }>(mr, {
    create(_call, object, args) {
      object.state = args
      return { lkey: 5, rkey: 6 }
    },
    query: (_call, { state: { length, iova } }) => ({ lkey: 5, rkey: 6, length, iova }),
    modify: null,
    destroy: () => ({}),
  }),
]

const { interface: Interface, device: DeviceClass, port: Port, async_fd: AsyncFd, event_queue: EventQueue } = Classes

const driver = {
  name: 'third-party',
  id: 0,
  classes: [
    ...[Interface, DeviceClass, Port, AsyncFd, EventQueue, pd].map(cls => driverClass(cls)),
    ...others,
    ...(Object.keys(QpTypes) as QpClassName[]).filter(name => !/^(xrc|dc)/.test(name)).map(qpClass),
    wqClass,
    tableClass,
    flowClass,
    tagClass,
  ],
}

/** A device with one port. `lid` is the port's LID. */
export const createThirdPartyDevice = (core: Core, name: string, link?: LinkName, lid = 0): Device<State> =>
  register(core, {
    name,
    driver: { ...driver, ...(link && { link }) },
    state: { rules: new Set<Rule>(), nextTag: 1 },
    attributes: { ...zeroRecord(DeviceAttributes), physPortCnt: 1 },
    extended: zeroRecord(ExtendedDeviceAttributes),
    ports: [
      { ...zeroRecord(PortAttributes), lid, activeMtu: link === undefined ? 0 : Mtu.values.MTU_4096, gidTblLen: 2 },
    ],
    numCompVectors: 1,
  })
