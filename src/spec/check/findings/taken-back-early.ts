/*
 * The row of the finding taken-back-early.
 */

export const takenBackEarly = {
  severity: 'warning',
  needs: ['check', 'pending requests', 'accesses', 'peer accesses'],
  title: 'lent memory was taken back while a request to it was outstanding',
  why: 'The owner has ended a lend (`userdma_take_back`), or relies on it that nobody accesses the bytes (`userdma_expect_finished`), while a request of a peer to these bytes is outstanding: a READ or an atomic that has not completed, or a WRITE that has not landed; of the second also if a request of the program itself has the bytes as its buffer. It may read or write the bytes later, then with `not-lent`.',
  advice: 'take back only after the peer has said that its requests are complete',
  libraryAdvice: 'close a lend only after the peer has said that its requests are complete',
} as const
