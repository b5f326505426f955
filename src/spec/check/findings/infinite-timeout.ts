/*
 * The row of the finding infinite-timeout.
 */

export const infiniteTimeout = {
  severity: 'note',
  needs: ['call', 'connections'],
  title: 'timeout 0 waits without limit for an answer',
  why: 'Timeout 0 switches the transport timer off (IBA 9.7.6): after a lost packet the request never completes. The finding is a warning if a request waits and its peer is gone.',
  advice: 'set timeout to 14 (67 ms) or more',
  wait: 6,
} as const
