/*
 * The row of the finding port-not-active.
 */

export const portNotActive = {
  severity: 'error',
  needs: ['device', 'InfiniBand', 'preload'],
  title: 'requests are sent before the port is ACTIVE',
  why: 'A port of InfiniBand is INIT until a subnet manager has given it a LID and made it ACTIVE (IBA 10.5, 14.2.5). Queue pairs can be connected before, but the port sends and receives management datagrams only: retries run out, and datagrams are lost.',
  advice:
    'wait for IBV_PORT_ACTIVE (ibv_query_port, or the event IBV_EVENT_PORT_ACTIVE) before you take the LID and connect; on a machine, look whether a subnet manager runs (`sminfo`)',
  causes: ['PORT_NOT_ACTIVE'],
  statuses: { RETRY_EXC_ERR: 9 },
} as const
