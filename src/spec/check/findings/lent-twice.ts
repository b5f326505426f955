/*
 * The row of the finding lent-twice.
 */

export const lentTwice = {
  severity: 'note',
  needs: ['check', 'accesses'],
  title: 'bytes were changed and told again though a peer may still access them',
  why: 'The owner has told a peer of bytes of its memory by a message, and then has changed them and has told of the same bytes again, though that peer has neither accessed them nor answered: as after a timeout. The first peer may still READ or WRITE them, and then without any error: `late-read`, `late-write`.',
  advice: 'let the peer confirm that it has given a request up before its bytes are used for another one',
  explainsFailure: true,
} as const
