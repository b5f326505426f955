/*
 * Classes of the dynamically connected transport of mlx5 (Linux: IBV_QPT_DRIVER with a flag of the driver's;
 * docs/decisions/dc.md). `dci_qp`, the initiator, has only a send queue; each request names its target: a path, the
 * target's number and its access key. `dct_qp`, the target, has no queue: receives, as its completions, belong to an
 * SRQ and a CQ that all its initiators share.
 */
import { objectClass } from '../../schema/schema.ts'
import { ClassId } from '../ids.ts'
import { ADDRESSES, qpMethods } from './qp.ts'

export const DciQp = objectClass('dci_qp', ClassId.dci_qp, {
  methods: qpMethods(
    'pkeyIndex',
    'port',
    ...ADDRESSES,
    'pathMtu',
    'timeout',
    'retryCnt',
    'rnrRetry',
    'maxRdAtomic',
    'minRnrTimer',
    'sqPsn',
  ),
})

const targetMethods = qpMethods('accessFlags', 'pkeyIndex', 'port', ...ADDRESSES, 'pathMtu', 'minRnrTimer')

export const DctQp = objectClass('dct_qp', ClassId.dct_qp, {
  methods: { ...targetMethods, modify: { ...targetMethods.modify, driverAttributes: true } },
})
