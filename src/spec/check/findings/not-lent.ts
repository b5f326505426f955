/*
 * The rows of findings about accesses to memory that is not lent, or lent for reading alone.
 */

export const notLent = {
  severity: 'error',
  needs: ['check', 'accesses', 'peer accesses'],
  title: 'a peer accessed memory that its owner had not lent',
  why: 'The owner says by `userdma.h` which bytes of its regions peers may access, for what, and until when (`userdma help how-to/lent-memory`). Once bytes of a region were lent, each READ, WRITE or atomic of a peer to bytes of it must be allowed by a lend that lasts: by its right, its peer and its time. Such an access makes no other error: the key is valid, so a late READ gets the data of the next request, and a late WRITE overwrites it. The finding has the stack of the request, if its program runs here, and those of the last lend, of its end, and of the lend of the same bytes since.',
  advice:
    'let the peer confirm that it has given a request up before its bytes are taken back, or destroy the queue pair or invalidate the key first',
  libraryAdvice:
    'let the peer confirm that it has given a request up before its lend is closed, or close the queue pair first',
} as const

export const lentChanged = {
  severity: 'warning',
  needs: ['check', 'accesses', 'peer accesses'],
  title: 'memory was changed while it was lent for reading',
  why: 'With USERDMA_READ alone the owner promises not to change the bytes before it takes them back: a peer that reads them meanwhile gets old, new or mixed bytes. Compared are, at the first access of a peer to the lend and at some later ones (at each with `--buffers all`), at most the first 4 KiB of a lend. WRITEs and atomics of peers that are allowed by another lend of the same bytes are no changes.',
  advice:
    'change the bytes only when they are taken back; if readers tolerate changes, lend with USERDMA_READ | USERDMA_WRITE',
  libraryAdvice: 'change the bytes only when the lend is closed',
} as const
