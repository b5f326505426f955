/*
 * The row of the finding connected-to-itself.
 */

export const connectedToItself = {
  severity: 'note',
  needs: ['call', 'connections'],
  title: 'a queue pair is connected to itself, or answers to itself',
  why: 'dest_qp_num and dgid name the queue pair itself, which receives its own messages. This is legal, but rarely intended. A datagram to the own queue pair is a warning if the one before came from another queue pair at this address, and nothing goes there until the queue pair ends.',
  advice: "exchange the numbers of both queue pairs, and set dest_qp_num to the peer's",
  libraryAdvice: "exchange the endpoints of both queue pairs: qp.connect takes the peer's",
} as const
