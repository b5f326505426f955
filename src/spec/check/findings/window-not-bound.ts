/*
 * The row of the finding window-not-bound.
 */

export const windowNotBound = {
  severity: 'error',
  needs: ['device', 'windows', 'causes'],
  title: 'the rkey is of a memory window that is not bound for this queue pair',
  why: 'A window is valid from its bind to its invalidation. A type 2 window is valid only on the queue pair that bound the window (IBA 10.6).',
  causes: ['WINDOW_UNBOUND', 'WINDOW_INVALIDATED', 'WINDOW_OTHER_QP'],
  statuses: { LOC_ACCESS_ERR: 6, REM_ACCESS_ERR: 7 },
} as const
