/*
 * Queue pairs of raw packets in the library (class `raw_packet_qp`; rdma-core: IBV_QPT_RAW_PACKET): whole frames of the
 * link go out as they are, and rules of steering say which come in. No device here has them.
 */
import { RawPacketQp } from '../../spec/classes/raw_packet_qp.ts'
import { QpState } from '../../spec/enums.ts'
import { WrOpcode } from '../../spec/work.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import { RequestWords, type SendOptions } from '../checks/request-options.ts'
import { type Steered, steered } from '../flow.ts'
import { checkOwn, type DeviceContext, type Named, type Plan } from '../plan.ts'
import { mergeTables } from '../shared-methods.ts'
import { type Activatable, type ActiveOptions, activatable, atCreation } from './activation.ts'
import {
  beginRequest,
  endRequest,
  type InitialOptions,
  type Local,
  type QpSelf,
  type QueuePair,
  type QueuePairOptions,
  queuePairPlan,
  queuePairType,
  queuePairWords,
} from './queue-pair.ts'

export interface RawPacketPort {
  /** Default 1. */
  readonly port?: number
}

export interface RawPacketQueuePair extends QueuePair<typeof RawPacketQp>, Activatable<RawPacketPort>, Steered {
  /** A frame of the link, from its header on. */
  send(local: Local, options?: SendOptions): void
}

export interface RawPacketQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof RawPacketQp>,
    ActiveOptions<RawPacketPort> {
  /** What it receives goes to the queues of a table (`device.rwqIndTable`); it has no receive queue then. */
  readonly table?: Named
}

const words: Words<RawPacketQueuePairOptions> = { ...queuePairWords, initial: true, active: true, table: true }
const { ANY } = RequestWords
const { INIT, RTR, RTS } = QpState.values

const activation = {
  cls: RawPacketQp,
  words: { port: true } satisfies Words<RawPacketPort>,
  steps: ({ port = 1 }: RawPacketPort) => [{ state: INIT, port }, { state: RTR }, { state: RTS }],
}

const type = queuePairType<RawPacketQueuePair>(
  RawPacketQp,
  mergeTables(mergeTables(activatable(activation), steered), {
    words: ANY,
    send(this: QpSelf, local: Local, options?: SendOptions): void {
      beginRequest(this, 'qp.send', WrOpcode.values.SEND, local, options, ANY)
      endRequest(this)
    },
  }),
)

export const rawPacketQpPlan = (
  kit: DeviceContext,
  pd: Named,
  options: RawPacketQueuePairOptions,
): Plan<RawPacketQueuePair> => {
  checkOptions('raw_packet_qp.create', 'options', options, words)
  const { table } = options
  const ready = atCreation(activation, options)
  if (table === undefined) return queuePairPlan(kit, type, pd, ready)
  checkOwn(kit, 'raw_packet_qp.create', 'table', table)
  const initial = { ...ready.initial, rwqIndTable: table.handle }
  return queuePairPlan(kit, type, pd, { ...ready, maxRecvWr: 0, maxRecvSge: 0, initial })
}
