/*
 * Queue pairs 0 and 1 of a port in the library (IBA 13.5; classes `smi_qp`, `gsi_qp`), which management datagrams go to
 * and come from. As under Linux programs have neither; a device in this process gives its user that of the general
 * services, one for a port. A soft device has no subnet management, one of a program's own driver may.
 */
import { GsiQp } from '../../spec/classes/gsi_qp.ts'
import { SmiQp } from '../../spec/classes/smi_qp.ts'
import { QpState } from '../../spec/enums.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import type { DeviceContext, Named, Plan } from '../plan.ts'
import { mergeTables } from '../shared-methods.ts'
import { type Activatable, type ActiveOptions, activatable, atCreation } from './activation.ts'
import { firstPsn } from './connection.ts'
import { type DatagramSender, datagramOperations } from './datagram.ts'
import {
  type InitialOptions,
  type QueuePair,
  type QueuePairOptions,
  queuePairPlan,
  queuePairType,
  queuePairWords,
} from './queue-pair.ts'

export interface ManagementPath {
  /** The partition, as index in the port's table; default 0. */
  readonly pkeyIndex?: number
}

type ManagementQueuePair<C extends typeof GsiQp | typeof SmiQp> = QueuePair<C> &
  DatagramSender &
  Activatable<ManagementPath>
type ManagementOptions<C extends ObjectClass> = QueuePairOptions & InitialOptions<C> & ActiveOptions<ManagementPath>

export interface GsiQueuePair extends ManagementQueuePair<typeof GsiQp> {}
export interface SmiQueuePair extends ManagementQueuePair<typeof SmiQp> {}
export interface GsiQueuePairOptions extends ManagementOptions<typeof GsiQp> {}
export interface SmiQueuePairOptions extends ManagementOptions<typeof SmiQp> {}

/** The well-known Q_Key of the general services (IBA 10.2.5); of subnet management there is none. */
export const GSI_QKEY = 0x8001_0000
const SMI_QKEY = 0

const { INIT, RTR, RTS } = QpState.values
const words: Words<GsiQueuePairOptions> & Words<SmiQueuePairOptions> = {
  ...queuePairWords,
  initial: true,
  active: true,
}

const managed = <T extends Disposable & Named>(cls: ObjectClass, qkey: number) => {
  const activation = {
    cls,
    words: { pkeyIndex: true } satisfies Words<ManagementPath>,
    steps: ({ pkeyIndex = 0 }: ManagementPath) => [
      { state: INIT, pkeyIndex, qkey },
      { state: RTR },
      { state: RTS, sqPsn: firstPsn() },
    ],
  }
  const type = queuePairType<T>(cls, mergeTables(activatable(activation), datagramOperations))
  return (kit: DeviceContext, pd: Named, options: ManagementOptions<ObjectClass>): Plan<T> => {
    checkOptions(`${cls.name}.create`, 'options', options, words)
    return queuePairPlan(kit, type, pd, atCreation(activation, options))
  }
}
const gsi = managed<GsiQueuePair>(GsiQp, GSI_QKEY)
const smi = managed<SmiQueuePair>(SmiQp, SMI_QKEY)

export const gsiQpPlan = (kit: DeviceContext, pd: Named, options: GsiQueuePairOptions): Plan<GsiQueuePair> =>
  gsi(kit, pd, options)
export const smiQpPlan = (kit: DeviceContext, pd: Named, options: SmiQueuePairOptions): Plan<SmiQueuePair> =>
  smi(kit, pd, options)
