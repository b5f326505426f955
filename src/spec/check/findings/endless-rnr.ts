/*
 * The row of the finding endless-rnr.
 */

export const endlessRnr = {
  severity: 'warning',
  needs: ['check', 'queues', 'waits'],
  title: 'a message waits without limit for a receive of the peer',
  why: 'With rnr_retry 7 the sender repeats a message until the peer has posted a receive (IBA 9.7.5.2.8): if the peer posts none, the request never completes, and no failure tells why. The finding has the numbers of receives and messages. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`; of a program of the library with `open({ check: true })`, after a second.',
  advice:
    'post a receive for each message, before the message is sent; to fail instead of waiting, set rnr_retry below 7',
  wait: 5,
  tells: 'reason',
} as const
