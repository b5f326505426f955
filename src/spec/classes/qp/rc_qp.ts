/* Class `rc_qp`: a queue pair of the reliable connected service (IBA 9.7, 10.3). */
import { objectClass } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { ADDRESSES, ALTERNATE_PATHS, postSend, qpMethods } from './qp.ts'

export const RcQp = objectClass('rc_qp', ClassId.rc_qp, {
  methods: {
    ...qpMethods(
      'accessFlags',
      'pkeyIndex',
      'port',
      ...ADDRESSES,
      'pathMtu',
      'timeout',
      'retryCnt',
      'rnrRetry',
      'rqPsn',
      'maxRdAtomic',
      ...ALTERNATE_PATHS,
      'minRnrTimer',
      'sqPsn',
      'maxDestRdAtomic',
      'pathMigState',
      'destQpn',
    ),
    postSend: postSend(CallNumber.rc_qp.postSend),
  },
})
