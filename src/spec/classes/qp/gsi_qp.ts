/*
 * Class `gsi_qp`: queue pair 1 of a port, for management datagrams of the general services (IBA 13.5, 16): a UD queue
 * pair with the well-known Q_Key 0x80010000, whatever Q_Key is set. As in Linux, programs cannot create this queue
 * pair. Callers in the device's own process can create one per port.
 */
import { objectClass } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { postSend, qpMethods } from './qp.ts'

export const GsiQp = objectClass('gsi_qp', ClassId.gsi_qp, {
  methods: { ...qpMethods('pkeyIndex', 'qkey', 'sqPsn'), postSend: postSend(CallNumber.gsi_qp.postSend) },
})
