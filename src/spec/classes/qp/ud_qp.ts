/*
 * Class `ud_qp`: a queue pair of the unreliable datagram service (IBA 9.8.3, 10.3). Each work request names its
 * destination (class `ah`). The queue pair has a Q_Key and may join multicast groups (IBA 10.5).
 */
import { bytes, method, objectClass, u16 } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { postSend, qpMethods } from './qp.ts'

/** A GID and a LID together identify a multicast group, on Ethernet too. */
const group = { gid: bytes(1, 16), mlid: u16(2) }

export const UdQp = objectClass('ud_qp', ClassId.ud_qp, {
  methods: {
    ...qpMethods('pkeyIndex', 'port', 'qkey', 'sqPsn'),
    postSend: postSend(CallNumber.ud_qp.postSend),
    attachMcast: method(CallNumber.ud_qp.attachMcast, { role: 'changes', in: group, out: {} }),
    detachMcast: method(CallNumber.ud_qp.detachMcast, { role: 'undoes', in: group, out: {} }),
  },
})
