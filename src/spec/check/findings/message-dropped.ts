/*
 * The row of the finding message-dropped.
 */

export const messageDropped = {
  severity: 'note',
  needs: ['check', 'other services', 'causes'],
  title: 'a message of UD or UC was dropped, and its request succeeds',
  why: 'Without acknowledgements the sender learns nothing: its request completes when the last packet is sent (IBA 9.8.2, 9.8.3). The message found no receive; or no device has the GID of its address handle, or no queue pair is in its multicast group, or on InfiniBand only queue pairs of ports that have not joined it (known if no packets leave the daemon, `--link memory`); or the peer of UC was destroyed or is not connected. The finding also names an address handle that was destroyed before the completion of its send was polled: an adapter may still need it (IBA 11.2.2).',
  causes: ['NO_RECEIVE', 'NOT_JOINED'],
} as const
