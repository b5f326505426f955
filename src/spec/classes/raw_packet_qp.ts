/*
 * Class `raw_packet_qp`: a queue pair that sends and receives whole frames of the link (Linux: IBV_QPT_RAW_PACKET);
 * what it receives is said by objects of class `flow`. No driver here has it: EOPNOTSUPP.
 */
import { objectClass } from '../schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { postSend, qpMethods } from './qp.ts'

export const RawPacketQp = objectClass('raw_packet_qp', ClassId.raw_packet_qp, {
  methods: { ...qpMethods('port'), postSend: postSend(CallNumber.raw_packet_qp.postSend) },
})
