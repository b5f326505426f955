/*
 * Class `smi_qp`: queue pair 0 of a port, to which management datagrams of the subnet go (IBA 13.5, 14). Links that are
 * Ethernet have no subnet management, so no driver here has it: EOPNOTSUPP.
 */
import { objectClass } from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { postSend, qpMethods } from './qp.ts'

export const SmiQp = objectClass('smi_qp', ClassId.smi_qp, {
  methods: { ...qpMethods('pkeyIndex', 'qkey', 'sqPsn'), postSend: postSend(CallNumber.smi_qp.postSend) },
})
