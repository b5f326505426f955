/*
 * The row of the finding class-differs.
 */

export const classDiffers = {
  severity: 'note',
  needs: ['call', 'connections'],
  title: 'connections between the same programs, or the two ends of one, have different traffic classes',
  why: 'Each end sends in the traffic class of its own path: an ACK or READ response has that of the responder, whatever the request had. Switches and adapters choose queue, pause (PFC) and mark (ECN) by its upper 6 bits, the DSCP; on InfiniBand by the service level. It is legal, and intended where control messages have a class of their own; often one end, or queue pairs that another library makes, have stayed in class 0, which loses packets where the other class does not.',
  advice:
    'give grh.traffic_class of both ends, and of all queue pairs that should be treated alike, the same value (NCCL_IB_TC, UCX_IB_TRAFFIC_CLASS, RDMA_OPTION_ID_TOS on all hosts); adapters may override it for queue pairs of verbs, and not for those of DEVX (/sys/class/infiniband/*/tc/1/traffic_class)',
} as const
