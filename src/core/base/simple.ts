/*
 * Core's own methods of the simple classes (R22): protection domains, event descriptors, and of the classes whose
 * objects are a driver's what is the same for every driver – counting events at a destroy, arming a CQ.
 */
import { Ah } from '../../spec/classes/ah.ts'
import { AsyncFd } from '../../spec/classes/async_fd.ts'
import { CompChannel } from '../../spec/classes/comp_channel.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { Pd } from '../../spec/classes/pd.ts'
import { QP_CLASSES } from '../../spec/classes/qp.ts'
import { Srq, TmSrq, XrcSrq } from '../../spec/classes/srq.ts'
import { Xrcd } from '../../spec/classes/xrcd.ts'
import { Classes } from '../../spec/classes.ts'
import { driverClass } from '../driver.ts'
import { arm, withdrawEvents } from '../events.ts'
import type { CoreObject, FdObject } from '../model.ts'

export const pdClass = driverClass(Pd, { create: () => ({}), destroy: () => ({}) })

export const compChannelClass = driverClass(CompChannel, { create: () => ({}) })

export const asyncFdClass = driverClass(AsyncFd, {
  create({ context }, object) {
    // The first one is where events of objects go that name no other (as Linux).
    context.asyncFd ??= object as FdObject
    return {}
  },
})

export const cqClass = driverClass(Cq, {
  destroy: (_call, object) => withdrawEvents(object),
  reqNotify(_call, object, { solicitedOnly }) {
    arm(object, solicitedOnly !== 0)
    return {}
  },
})

const countEvents = (_call: unknown, object: CoreObject) => ({ events: withdrawEvents(object).asyncEvents })

/** Queue pairs of any type. */
export const qpClasses = QP_CLASSES.map(name =>
  driverClass(Classes[name] as typeof Classes.rc_qp, {
    destroy: countEvents,
  }),
)

export const srqClass = driverClass(Srq, { destroy: countEvents })
export const xrcSrqClass = driverClass(XrcSrq, { destroy: countEvents })
export const tmSrqClass = driverClass(TmSrq, { destroy: countEvents })

export const ahClass = driverClass(Ah, { destroy: () => ({}) })

export const xrcdClass = driverClass(Xrcd, { destroy: () => ({}) })
