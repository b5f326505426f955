/*
 * Class `raw_packet_qp`: a queue pair that sends and receives whole frames of the link (Linux: IBV_QPT_RAW_PACKET).
 * Objects of class `flow` select the received frames.
 */
import { CREATE, method, objectClass, optional, ref } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { postSend, qpMethods } from './qp.ts'

const common = qpMethods('port')

export const RawPacketQp = objectClass('raw_packet_qp', ClassId.raw_packet_qp, {
  methods: {
    ...common,
    create: method(CREATE, {
      /**
       * `rwqIndTable`: the queue pair receives into the work queues of this table and has no receive queue, and CQs
       * only for queues that it has. Otherwise both CQs are required.
       */
      in: {
        ...common.create.in,
        sendCq: optional(common.create.in.sendCq),
        recvCq: optional(common.create.in.recvCq),
        rwqIndTable: optional(ref(9, 'rwq_ind_table')),
      },
      out: common.create.out,
      driverAttributes: true,
      needs: 'RAW_PACKETS',
    }),
    postSend: postSend(CallNumber.raw_packet_qp.postSend),
  },
})
