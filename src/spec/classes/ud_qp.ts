/*
 * Class `ud_qp`: a queue pair of the unreliable datagram service (IBA 9.8.3, 10.3): each work request says where to
 * (class `ah`), the queue pair has a Q_Key, and may belong to multicast groups (IBA 10.5).
 */
import { bytes, method, objectClass, u16 } from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { postSend, qpMethods } from './qp.ts'

/** A group: its GID, and the multicast LID, which means nothing on a link that is Ethernet but is part of its name. */
const group = { gid: bytes(1, 16), mlid: u16(2) }

export const UdQp = objectClass('ud_qp', ClassId.ud_qp, {
  methods: {
    ...qpMethods('pkeyIndex', 'port', 'qkey', 'sqPsn'),
    postSend: postSend(CallNumber.ud_qp.postSend),
    attachMcast: method(CallNumber.ud_qp.attachMcast, { in: group, out: {} }),
    detachMcast: method(CallNumber.ud_qp.detachMcast, { in: group, out: {} }),
  },
})
