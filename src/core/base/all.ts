/*
 * All classes, with core's own methods (R19). A device has the classes that its driver lists.
 */
import { classes } from '../../spec/classes.ts'
import { driverClass } from '../devices/driver.ts'
import type { DriverClass } from '../driver-contract.ts'
import { deviceClass, portClass } from './device.ts'
import { dmahClass } from './dmah.ts'
import { ahClass, cqClass, qpClasses, srqClass, tmSrqClass, wqClass, xrcdClass, xrcSrqClass } from './driver-objects.ts'
import { driverOpsClass } from './driver-ops.ts'
import { asyncFdClass, compChannelClass, eventQueueClass } from './event-queue.ts'
import { interfaceClass } from './interface.ts'
import { mrClass } from './mr.ts'
import { mwClass } from './mw.ts'
import { pdClass } from './pd.ts'
import { systemClass } from './system.ts'

const classesWithMethods: readonly DriverClass[] = [
  interfaceClass,
  deviceClass,
  portClass,
  pdClass,
  cqClass,
  mrClass,
  mwClass,
  ahClass,
  dmahClass,
  compChannelClass,
  asyncFdClass,
  eventQueueClass,
  ...qpClasses,
  srqClass,
  xrcSrqClass,
  tmSrqClass,
  xrcdClass,
  wqClass,
  systemClass,
  driverOpsClass,
]

export const coreClasses: readonly DriverClass[] = [
  ...classesWithMethods,
  ...classes.filter(cls => !classesWithMethods.some(other => other.class === cls)).map(cls => driverClass(cls)),
]
