/*
 * The row of the finding bind-refused.
 */

export const bindRefused = {
  severity: 'error',
  needs: ['device', 'windows', 'causes'],
  title: 'a memory window could not be bound or invalidated',
  why: "The region of a window is in the window's protection domain, and has IBV_ACCESS_MW_BIND and the window's rights (IBA 10.6).",
  causes: [
    'BIND_WINDOW',
    'BIND_RIGHTS',
    'BIND_BOUND',
    'BIND_LENGTH',
    'BIND_REGION',
    'BIND_NO_RIGHT',
    'BIND_RANGE',
    'BIND_REFUSED',
    'LOCAL_INVALIDATE',
    'NOT_INVALIDATED',
  ],
  statuses: { LOC_QP_OP_ERR: 3, MW_BIND_ERR: 1, REM_INV_REQ_ERR: 6 },
} as const
