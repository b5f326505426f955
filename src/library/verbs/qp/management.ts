/*
 * Queue pairs 0 and 1 of a port (IBA 13.5; classes `smi_qp`, `gsi_qp`), for management datagrams. As in Linux, programs
 * cannot create them on a daemon's device. A soft device in this process has queue pair 1, once per port, but no queue
 * pair 0.
 */
import { GsiQp } from '../../../spec/classes/qp/gsi_qp.ts'
import { SmiQp } from '../../../spec/classes/qp/smi_qp.ts'
import { QpState } from '../../../spec/enums.ts'
import type { ObjectClass } from '../../../spec/schema/schema.ts'
import { GSI_QKEY } from '../../../spec/wire/mad.ts'
import { checkOptions, type KnownOptions } from '../arguments/options.ts'
import type { DeviceContext, ObjectReference, Plan } from '../plan.ts'
import { type Activatable, type Activation, type ActiveOptions, activate, activeAtCreation } from './activation.ts'
import { firstPsn } from './connection.ts'
import { DatagramQp, type DatagramSender } from './datagram.ts'
import {
  type InitialOptions,
  type QueuePair,
  type QueuePairOptions,
  queuePairOptionNames,
  queuePairPlan,
  queuePairType,
} from './queue-pair.ts'

/** Options of `activate` of queue pairs 0 and 1. */
interface ManagementPath {
  /** Index of the partition in the port's P_Key table; default 0. */
  readonly pkeyIndex?: number | undefined
}

type ManagementQueuePair<C extends typeof GsiQp | typeof SmiQp> = QueuePair<C> &
  DatagramSender &
  Activatable<ManagementPath>
type ManagementOptions<C extends ObjectClass> = QueuePairOptions & InitialOptions<C> & ActiveOptions<ManagementPath>

/** Queue pair 1 of the port. */
export interface GsiQueuePair extends ManagementQueuePair<typeof GsiQp> {}
/** Queue pair 0 of the port. */
export interface SmiQueuePair extends ManagementQueuePair<typeof SmiQp> {}
/** Options of `pd.gsiQp`. */
export interface GsiQueuePairOptions extends ManagementOptions<typeof GsiQp> {}
/** Options of `pd.smiQp`. */
export interface SmiQueuePairOptions extends ManagementOptions<typeof SmiQp> {}

export { GSI_QKEY }

/** Queue pair 0 has no Q_Key; its packets have 0. */
const SMI_QKEY = 0

const { INIT, RTR, RTS } = QpState.values
const optionNames: KnownOptions<GsiQueuePairOptions> & KnownOptions<SmiQueuePairOptions> = {
  ...queuePairOptionNames,
  initial: 'record',
  active: true,
}

const activationOf = (cls: ObjectClass, qkey: number): Activation<ManagementPath> => ({
  cls,
  optionNames: { pkeyIndex: true } satisfies KnownOptions<ManagementPath>,
  steps: ({ pkeyIndex = 0 }) => [{ state: INIT, pkeyIndex, qkey }, { state: RTR }, { state: RTS, sqPsn: firstPsn() }],
})
const gsiActivation = activationOf(GsiQp, GSI_QKEY)
const smiActivation = activationOf(SmiQp, SMI_QKEY)

class GsiObject extends DatagramQp<typeof GsiQp> implements GsiQueuePair {
  get cls(): typeof GsiQp {
    return GsiQp
  }

  activate(options: ManagementPath = {}): void {
    activate(this, gsiActivation, options)
  }
}

class SmiObject extends DatagramQp<typeof SmiQp> implements SmiQueuePair {
  get cls(): typeof SmiQp {
    return SmiQp
  }

  activate(options: ManagementPath = {}): void {
    activate(this, smiActivation, options)
  }
}
const gsiType = queuePairType('GsiQueuePair', GsiObject)
const smiType = queuePairType('SmiQueuePair', SmiObject)

export const gsiQpPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  options: GsiQueuePairOptions,
): Plan<GsiQueuePair> => {
  checkOptions('gsi_qp.create', 'options', options, optionNames)
  return queuePairPlan(context, gsiType, pd, activeAtCreation(gsiActivation, options))
}
export const smiQpPlan = (
  context: DeviceContext,
  pd: ObjectReference,
  options: SmiQueuePairOptions,
): Plan<SmiQueuePair> => {
  checkOptions('smi_qp.create', 'options', options, optionNames)
  return queuePairPlan(context, smiType, pd, activeAtCreation(smiActivation, options))
}
