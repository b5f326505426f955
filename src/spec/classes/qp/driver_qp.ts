/*
 * Class `driver_qp`: a queue pair of a type that only its driver knows (Linux: IBV_QPT_DRIVER), such as the scalable
 * reliable datagrams of EFA. Core knows its states, which are those of datagrams; the driver's attributes of `create`
 * select the type.
 */
import { objectClass } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { postSend, qpMethods } from './qp.ts'

export const DriverQp = objectClass('driver_qp', ClassId.driver_qp, {
  methods: {
    ...qpMethods('pkeyIndex', 'port', 'qkey', 'sqPsn', 'rnrRetry'),
    postSend: postSend(CallNumber.driver_qp.postSend),
  },
})
