/*
 * Classes `ud_qp` and `gsi_qp` of the soft device: differences from qp-class.ts (R9). A UD queue pair that is attached
 * to multicast groups cannot be destroyed (Linux: EBUSY). The GSI queue pair has QPN 1 and always the well-known Q_Key
 * (IBA 10.2.5); only callers in this process can create one.
 */

import { driverClass, type Handlers } from '../../../core/devices/driver.ts'
import type { DriverClass } from '../../../core/driver-contract.ts'
import type { AnyHandler } from '../../../core/model.ts'
import { GsiQp } from '../../../spec/classes/qp/gsi_qp.ts'
import { UdQp } from '../../../spec/classes/qp/ud_qp.ts'
import { callError } from '../../../spec/errno.ts'
import { the } from '../../../spec/reason.ts'
import { GSI_QKEY, GSI_QPN } from '../../../spec/wire/mad.ts'
import { Service } from '../../../spec/wire/services.ts'
import type { QueueFormat } from '../format.ts'
import { type QpObject, type QueuePair, stateOf } from '../state.ts'
import { qpClass } from './qp-class.ts'

const multicastHandlers: Handlers<typeof UdQp, QueuePair> = {
  attachMcast(call, { state }, { gid, mlid }) {
    stateOf(call).paths.checkGroupLid(mlid)
    stateOf(call).groups.attach(state.row, gid, mlid, call.context.account)
    return {}
  },
  detachMcast(call, { state }, { gid, mlid }) {
    stateOf(call).groups.detach(state.row, gid, mlid)
    return {}
  },
}

const udQpClass = (format: QueueFormat): DriverClass => {
  const ud = qpClass(UdQp, 'UD', Service.UD, format)
  const destroyUd = ud.handlers.destroy as AnyHandler
  return {
    ...ud,
    handlers: {
      ...ud.handlers,
      ...driverClass<typeof UdQp, QueuePair>(UdQp, multicastHandlers).handlers,
      destroy(call, object, args, core) {
        const { groups } = stateOf(call)
        const { row } = (object as QpObject).state
        const count = groups.count(row)
        if (call.why === 'call' && count > 0)
          throw callError.EBUSY`${the.method('ud_qp.destroy')}: the queue pair is attached to ${count} multicast groups: detach it first`
        groups.detachAll(row)
        return destroyUd(call, object, args, core)
      },
    },
  }
}

const gsiQpClass = (format: QueueFormat): DriverClass => {
  const gsi = qpClass(GsiQp, 'GSI', Service.UD, format, () => GSI_QPN)
  const createGsi = gsi.handlers.create as AnyHandler
  const modifyGsi = gsi.handlers.modify as AnyHandler
  return {
    ...gsi,
    handlers: {
      ...gsi.handlers,
      create(call, object, args, core) {
        if (!format.isInProcess(call.context))
          throw callError.EINVAL`${the.method('gsi_qp.create')}: programs cannot create the queue pair of the general services`
        if (stateOf(call).coreQueues.byNumber.has(GSI_QPN) || stateOf(call).qpns.rowOf(GSI_QPN) >= 0)
          throw callError.EINVAL`${the.method('gsi_qp.create')}: port 1 has its queue pair of the general services already`
        return createGsi(call, object, args, core)
      },
      modify: (call, object, args, core) =>
        modifyGsi(call, object, args.qkey === undefined ? args : { ...args, qkey: GSI_QKEY }, core),
    },
  }
}

export const datagramQpClasses = (format: QueueFormat): readonly DriverClass[] => [
  udQpClass(format),
  gsiQpClass(format),
]
