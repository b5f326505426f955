/*
 * The finding bind-refused: its row in ../findings.ts.
 */

export const bindRefused = {
  severity: 'error',
  needs: ['device'],
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
} as const
