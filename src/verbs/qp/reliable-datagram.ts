/*
 * Queue pairs of the reliable datagram service in the library (IBA 9.7, 10.2.7; class `rd_qp`): made, changed, asked,
 * and messages received. What they send goes over end-to-end contexts, which have no class and no place in a request,
 * so there is no word for sending. No device that we know of was ever made with them.
 */
import { RdQp } from '../../spec/classes/rd_qp.ts'
import { QpState } from '../../spec/enums.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import { type Access, accessFlags } from '../mr/region.ts'
import type { DeviceContext, Named, Plan } from '../plan.ts'
import { type Activatable, type ActiveOptions, activatable, atCreation } from './activation.ts'
import { DEFAULT_QKEY } from './datagram.ts'
import {
  type InitialOptions,
  type QueuePair,
  type QueuePairOptions,
  queuePairPlan,
  queuePairType,
  queuePairWords,
} from './queue-pair.ts'

export interface RdActivation {
  /** Messages with another Q_Key are dropped; default 0x11111111. */
  readonly qkey?: number
  /** Rights of peers; default reading and writing. */
  readonly access?: Access
  /** What a peer waits before it tries again when nothing is posted here, code 0–31; default 12 (0.64 ms). */
  readonly minRnrTimer?: number
}

export interface RdQueuePair extends QueuePair<typeof RdQp>, Activatable<RdActivation> {}

export interface RdQueuePairOptions
  extends QueuePairOptions,
    InitialOptions<typeof RdQp>,
    ActiveOptions<RdActivation> {}

const words: Words<RdQueuePairOptions> = { ...queuePairWords, initial: true, active: true }
const { INIT, RTR, RTS } = QpState.values
const PEERS: Access = { remoteRead: true, remoteWrite: true }

const activation = {
  cls: RdQp,
  words: { qkey: true, access: true, minRnrTimer: true } satisfies Words<RdActivation>,
  steps: ({ qkey = DEFAULT_QKEY, access = PEERS, minRnrTimer = 12 }: RdActivation) => [
    { state: INIT, qkey, accessFlags: accessFlags('qp.activate', access, false) },
    { state: RTR, minRnrTimer },
    { state: RTS },
  ],
}

const type = queuePairType<RdQueuePair>(RdQp, activatable(activation))

export const rdQpPlan = (kit: DeviceContext, pd: Named, options: RdQueuePairOptions): Plan<RdQueuePair> => {
  checkOptions('rd_qp.create', 'options', options, words)
  return queuePairPlan(kit, type, pd, atCreation(activation, options))
}
