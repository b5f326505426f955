/*
 * Class `smi_qp`: queue pair 0 of a port, which carries subnet management packets (IBA 13.5, 14). Ethernet links have
 * no subnet management, so no driver here has it: EOPNOTSUPP.
 */
import { objectClass } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { postSend, qpMethods } from './qp.ts'

export const SmiQp = objectClass('smi_qp', ClassId.smi_qp, {
  methods: { ...qpMethods('pkeyIndex', 'qkey', 'sqPsn'), postSend: postSend(CallNumber.smi_qp.postSend) },
})
