/*
 * The row of the finding key-mismatch.
 */

export const keyMismatch = {
  severity: 'error',
  needs: ['device', 'other services', 'causes'],
  title: 'the Q_Key of a datagram or the P_Key of a packet is not that of its destination',
  why: 'A packet with another P_Key or Q_Key than the queue pair is dropped without an answer (IBA 10.2.4, 10.2.5): datagrams are lost, a request of SRD fails, and the retries of a connection run out. Of two limited members of a partition (a P_Key without 0x8000) neither takes packets of the other, and an empty entry of the table of P_Keys is in no partition (IBA 10.9.1).',
  libraryAdvice:
    'send with the qkey that the receiver gave to qp.activate; a qkey with the highest bit set stands for the one of the sending queue pair',
  causes: ['QKEY_DIFFERS', 'PKEY_DIFFERS', 'PKEY_LIMITED', 'PKEY_EMPTY', 'SRD_QKEY'],
  statuses: { RETRY_EXC_ERR: 10, REM_INV_RD_REQ_ERR: 1 },
} as const
