/*
 * Class `gsi_qp`: queue pair 1 of a port, to which management datagrams of the general services go (IBA 13.5, 16).
 * It is a datagram queue pair whose Q_Key is the well-known one, whatever is set. Programs do not have it, as under
 * Linux: it is for clients in this process, one for a port.
 */
import { objectClass } from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { postSend, qpMethods } from './qp.ts'

export const GsiQp = objectClass('gsi_qp', ClassId.gsi_qp, {
  methods: { ...qpMethods('pkeyIndex', 'qkey', 'sqPsn'), postSend: postSend(CallNumber.gsi_qp.postSend) },
})
