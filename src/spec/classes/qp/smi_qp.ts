/*
 * Class `smi_qp`: queue pair 0 of a port, for subnet management packets (IBA 13.5, 14). Ethernet has no subnet
 * management, and no driver here has the class: EOPNOTSUPP.
 */
import { objectClass } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { postSend, qpMethods } from './qp.ts'

export const SmiQp = objectClass('smi_qp', ClassId.smi_qp, {
  methods: { ...qpMethods('pkeyIndex', 'qkey', 'sqPsn'), postSend: postSend(CallNumber.smi_qp.postSend) },
})
