/*
 * Class `raw_packet_qp` of mlx5 devices: the queue pair of the soft device with frames in place of messages, and the
 * program's queues; or, with an indirection table, a receiver without queues that spreads frames over work queues
 * (receive side scaling). Only links that carry frames have them.
 */
import { overlayClass } from '../../../core/devices/driver.ts'
import type { CallContext, CoreObject } from '../../../core/model.ts'
import { RawPacketQp } from '../../../spec/classes/qp/raw_packet_qp.ts'
import { Mlx5Attributes, RX_HASH_FIELDS, RxHash, TOEPLITZ, TOEPLITZ_KEY_BYTES } from '../../../spec/drivers/mlx5.ts'
import { callError } from '../../../spec/errno.ts'
import { because, the } from '../../../spec/reason.ts'
import { Service } from '../../../spec/wire/services.ts'
import { qpClass } from '../../soft/classes/qp-class.ts'
import { emptyReceiveQueue, emptySendQueue } from '../../soft/queues.ts'
import { noPsns, type QpCap, type QpObject, type QueuePair, type SoftState } from '../../soft/state.ts'
import { blockFormat } from '../format.ts'
import { requireFrames, stateOf } from '../state.ts'
import type { ArrivedFrame } from './arrived-frame.ts'
import { headersOf } from './frame-link.ts'
import { hashFrame, type RssKey } from './rss-hash.ts'
import type { FrameReceiver } from './steering.ts'
import type { TableObject, WqObject } from './work-queues.ts'

/** A queue pair or work queue that receives frames. */
export const queueReceiver = ({ state: { row } }: QpObject | WqObject, { engine }: SoftState): FrameReceiver => ({
  receive: (frame, tag) => engine().onFrame(row, frame.arena, frame.at, frame.length, tag, headersOf(frame)),
})

/** The work queue of a frame is chosen by the hash of its fields, so that a flow keeps its order. */
class ScalingReceiver implements FrameReceiver {
  readonly #queues: readonly FrameReceiver[]
  readonly #key: RssKey

  constructor(queues: readonly FrameReceiver[], key: RssKey) {
    this.#queues = queues
    this.#key = key
  }

  receive(frame: ArrivedFrame, tag: number): void {
    this.#queues[hashFrame(this.#key, frame.key) & (this.#queues.length - 1)]!.receive(frame, tag)
  }
}

interface RawQp extends QueuePair {
  /** Of flow rules, once there is one. */
  receiver?: FrameReceiver
}

/** The state of a queue pair with an indirection table: no queues, and no row of the engine. */
interface ScalingQp extends RawQp {
  readonly scaling: FrameReceiver
}

const NO_ROW = -1

const scalingOf = (object: CoreObject): ScalingQp | undefined => {
  const state = object.state as ScalingQp | RawQp
  return 'scaling' in state ? state : undefined
}

/** What flow rules for this queue pair deliver to: always the same object. */
export const receiverOf = (object: CoreObject, device: SoftState): FrameReceiver => {
  const state = object.state as RawQp
  state.receiver ??= scalingOf(object)?.scaling ?? queueReceiver(object as QpObject, device)
  return state.receiver
}

interface ScalingArguments {
  readonly cap: QpCap
  readonly sendCq?: CoreObject
  readonly hashFields?: bigint
  readonly hashFunction?: number
  readonly hashKeyBytes?: number
  readonly hashKey?: Uint8Array
  readonly rssFlags?: number
}

const both = (fields: number, one: number, other: number): boolean => (fields & one) !== 0 && (fields & other) !== 0

/** Throws CallError EINVAL, EOPNOTSUPP, as Linux's driver. */
const keyOf = (args: ScalingArguments): RssKey => {
  const { hashFields = 0n, hashFunction = 0, hashKeyBytes = 0, hashKey = new Uint8Array(), rssFlags = 0 } = args
  const subject = because`${the.method('raw_packet_qp.create')}: the indirection table`
  if (hashFields > BigInt(RX_HASH_FIELDS))
    throw callError.EOPNOTSUPP`${subject}: hash fields 0x${hashFields.toString(16)}: of ESP and tunnels the device has none`
  if (hashFunction !== TOEPLITZ)
    throw callError.EOPNOTSUPP`${subject}: hash function ${hashFunction}: the device has 1, Toeplitz`
  if (hashKeyBytes !== TOEPLITZ_KEY_BYTES)
    throw callError.EINVAL`${subject}: a hash key of ${hashKeyBytes} bytes; Toeplitz has ${TOEPLITZ_KEY_BYTES}`
  if (rssFlags !== 0) throw callError.EOPNOTSUPP`${subject}: flags 0x${rssFlags.toString(16)}: the device knows none`
  const fields = Number(hashFields)
  const { SRC_IPV4, DST_IPV4, SRC_IPV6, DST_IPV6 } = RxHash
  const { SRC_PORT_TCP, DST_PORT_TCP, SRC_PORT_UDP, DST_PORT_UDP } = RxHash
  if (
    both(fields, SRC_IPV4 | DST_IPV4, SRC_IPV6 | DST_IPV6) ||
    both(fields, SRC_PORT_TCP | DST_PORT_TCP, SRC_PORT_UDP | DST_PORT_UDP)
  )
    throw callError.EINVAL`${subject}: hash fields 0x${fields.toString(16)}: IPv4 and IPv6, or TCP and UDP, exclude each other`
  return { fields, key: hashKey.slice(0, TOEPLITZ_KEY_BYTES) }
}

const createScaling = (call: CallContext, object: CoreObject, args: ScalingArguments, table: TableObject) => {
  if (args.sendCq !== undefined)
    throw callError.EOPNOTSUPP`${the.method('raw_packet_qp.create')}: a queue pair with an indirection table has no send queue`
  const { soft } = stateOf(call)
  const queues = table.state.queues.map(wq => queueReceiver(wq, soft))
  const scaling = new ScalingReceiver(queues, keyOf(args))
  const state: ScalingQp = {
    row: NO_ROW,
    qpn: soft.qpns.take(),
    send: emptySendQueue,
    receive: emptyReceiveQueue,
    attributeBits: 0,
    address: undefined,
    firstPsns: noPsns,
    heldGid: -1,
    flow: -1,
    scaling,
  }
  object.state = state
  return { cap: args.cap, qpNum: state.qpn, uarOut: 0 }
}

const refuseChange = (method: string): never => {
  throw callError.EOPNOTSUPP`${the.method(`raw_packet_qp.${method}`)}: a queue pair with an indirection table has no state of its own`
}

export const rawPacketQpClass = overlayClass<typeof RawPacketQp, RawQp, typeof Mlx5Attributes.raw_packet_qp>(
  qpClass(RawPacketQp, 'RAW_PACKET', Service.RAW, blockFormat(Mlx5Attributes.raw_packet_qp)),
  Mlx5Attributes.raw_packet_qp,
  inner => ({
    create(call, object, args, core) {
      requireFrames(call, 'raw_packet_qp.create')
      const table = args.rwqIndTable as TableObject | undefined
      if (table !== undefined) return createScaling(call, object, args, table)
      for (const name of ['sendCq', 'recvCq'] as const)
        if (args[name] === undefined)
          throw callError.EINVAL`${the.method('raw_packet_qp.create')}: ${the.attribute(name)} is missing`
      return inner.create(call, object, args, core)
    },
    query: (call, object, args, core) =>
      scalingOf(object) === undefined ? inner.query(call, object, args, core) : refuseChange('query'),
    modify: (call, object, args, core) =>
      scalingOf(object) === undefined ? inner.modify(call, object, args, core) : refuseChange('modify'),
    destroy(call, object, args, core) {
      const scaling = scalingOf(object)
      if (scaling === undefined) return inner.destroy(call, object, args, core)
      stateOf(call).soft.qpns.free(scaling.qpn)
      return core(call, object, args)
    },
  }),
)
