/*
 * Core's own methods of the classes that drivers implement (R22): destroys, and the arming and event threshold of a CQ.
 */
import { Ah } from '../../spec/classes/ah.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { QP_CLASSES } from '../../spec/classes/qp/qp.ts'
import { Srq, TmSrq, XrcSrq } from '../../spec/classes/srq.ts'
import { Xrcd } from '../../spec/classes/xrcd.ts'
import { Classes } from '../../spec/classes.ts'
import { callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { driverClass } from '../devices/driver.ts'
import { arm, setThreshold, withdrawEvents } from '../events/events.ts'
import type { CallContext, CoreObject, EventsRead } from '../model.ts'

/** Ends the events of an object that is being destroyed, and tells the caller how many were read. */
const endEvents = ({ caller }: CallContext, object: CoreObject): EventsRead => {
  const read = withdrawEvents(object)
  if (read.compEvents + read.asyncEvents > 0) caller.eventsRead?.(object, read)
  return read
}

export const cqClass = driverClass(Cq, {
  /** Sets the event threshold (R36). Resizing, and returning the real `cqe`, need the driver's own handler. */
  modify(_call, object, { cqe, count, period }) {
    if (cqe !== undefined)
      throw callError.EOPNOTSUPP`${the.method('cq.modify')}: ${the.attribute('cqe')}: the driver cannot resize`
    if (count !== undefined || period !== undefined) setThreshold(object, count, period)
    return { cqe: 0 }
  },
  destroy: endEvents,
  reqNotify(_call, object, { solicitedOnly, count, period }) {
    arm(object, solicitedOnly !== 0, count, period)
    return {}
  },
})

/** Returns the number of async events that the client has read. */
const destroyWithEvents = (call: CallContext, object: CoreObject) => ({ events: endEvents(call, object).asyncEvents })

export const qpClasses = QP_CLASSES.map(name =>
  driverClass(Classes[name] as typeof Classes.rc_qp, {
    destroy: destroyWithEvents,
  }),
)

export const srqClass = driverClass(Srq, { destroy: destroyWithEvents })
export const xrcSrqClass = driverClass(XrcSrq, { destroy: destroyWithEvents })
export const tmSrqClass = driverClass(TmSrq, { destroy: destroyWithEvents })

export const ahClass = driverClass(Ah, { destroy: () => ({}) })

export const xrcdClass = driverClass(Xrcd, { destroy: () => ({}) })

export const wqClass = driverClass(Classes.wq, { destroy: destroyWithEvents })
