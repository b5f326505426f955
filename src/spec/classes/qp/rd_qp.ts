/*
 * Class `rd_qp`: a queue pair of the reliable datagram service (IBA 9.7, 10.2.7, 10.3). Path, partition and retries are
 * properties of end-to-end contexts. No driver here has the class: EOPNOTSUPP.
 */
import { objectClass } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { postSend, qpMethods } from './qp.ts'

export const RdQp = objectClass('rd_qp', ClassId.rd_qp, {
  methods: { ...qpMethods('accessFlags', 'qkey', 'minRnrTimer'), postSend: postSend(CallNumber.rd_qp.postSend) },
})
