/*
 * The classes of a core with the subsystem's clients: core's own, connections and management datagrams.
 */
import { coreClasses } from '../core/base/all.ts'
import type { DriverClass } from '../core/model.ts'
import { madClasses } from './mad/classes.ts'
import type { MadLayer } from './mad/layer.ts'
import { cmClasses } from './rdma-cm/classes.ts'
import type { RdmaCm } from './rdma-cm/rdma-cm.ts'

/** Both are asked for when a call comes. */
export const clientClasses = (cm: () => RdmaCm, mads: () => MadLayer): readonly DriverClass[] => [
  ...coreClasses,
  ...cmClasses(cm),
  ...madClasses(mads),
]
