/*
 * The row of the finding atomic-misaligned.
 */

export const atomicMisaligned = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'peer', 'atomics'],
  title: 'the address of an atomic is not a multiple of 8',
  why: 'Atomics work on 8 aligned bytes (IBA 9.4.5).',
  advice: 'align the remote address to 8 bytes',
  causes: ['ATOMIC_ADDRESS'],
  statuses: { REM_INV_REQ_ERR: 5 },
  story: 'post',
} as const
