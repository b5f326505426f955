/*
 * Class `raw_packet_qp`: a queue pair that sends and receives whole frames of the link (Linux: IBV_QPT_RAW_PACKET);
 * what it receives is said by objects of class `flow`. No driver here has it: EOPNOTSUPP.
 */
import { CREATE, method, objectClass, optional, ref } from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { postSend, qpMethods } from './qp.ts'

const common = qpMethods('port')

export const RawPacketQp = objectClass('raw_packet_qp', ClassId.raw_packet_qp, {
  methods: {
    ...common,
    create: method(CREATE, {
      /** `rwqIndTable`: what it receives goes to queues of the table, which is the driver's; it has none of its own. */
      in: { ...common.create.in, rwqIndTable: optional(ref(9, 'rwq_ind_table')) },
      out: common.create.out,
      driverAttributes: true,
      needs: 'NET_RAW',
    }),
    postSend: postSend(CallNumber.raw_packet_qp.postSend),
  },
})
