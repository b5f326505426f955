/*
 * The row of the finding deadlock.
 */

export const deadlock = {
  severity: 'warning',
  needs: ['check', 'waits'],
  title: 'threads wait for each other, or for what nobody ends',
  why: 'Each thread of a cycle waits for the next one: for a lock that it holds, for its end, or for a message that it does not send. A chain ends at a thread whose wait nothing ends, such as ibv_get_async_event while no event is on its way. Threads of all processes of the daemon are looked at, and their connections; a thread of which nothing is known, a timeout, a listener, a descriptor of another program and outstanding work count as what may end a wait, and where a thread of the cycle polls, everything else stands still. Programs that stand still for different reasons have a finding each. "who waits for whom:" has all threads that wait, those of the cycle first. It is reported when a program is ended by a signal, on Ctrl-C, or with `--hang`; `userdma stat --waits` shows it without.',
  wait: 1,
  tells: 'deadlock',
} as const
