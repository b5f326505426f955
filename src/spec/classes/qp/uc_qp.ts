/*
 * Class `uc_qp`: a queue pair of the unreliable connected service (IBA 9.8): no acknowledgements, and so no timers,
 * retries, READs or atomics.
 */
import { objectClass } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { ADDRESSES, ALTERNATE_PATHS, postSend, qpMethods } from './qp.ts'

export const UcQp = objectClass('uc_qp', ClassId.uc_qp, {
  methods: {
    ...qpMethods(
      'accessFlags',
      'pkeyIndex',
      'port',
      ...ADDRESSES,
      'pathMtu',
      'rqPsn',
      ...ALTERNATE_PATHS,
      'sqPsn',
      'pathMigState',
      'destQpn',
    ),
    postSend: postSend(CallNumber.uc_qp.postSend),
  },
})
