/*
 * The row of the finding swap-repeated.
 */

export const swapRepeated = {
  severity: 'warning',
  needs: ['check', 'atomics', 'waits'],
  title: 'a compare-and-swap is repeated, and the word has another value than it expects',
  why: 'A compare-and-swap changes the word only if it has the expected value, and returns the value that it found. After a thousand in a row, all alike, the finding says what was expected and found, and whose request wrote the word: that of a process that has ended with a lock leaves it taken for ever, and a word that was written in the byte order of the network is another number, because the device compares numbers of its host. It is a note if the writer goes on, because a lock may be held for long; words that others give back meanwhile are no finding. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`.',
  wait: 7,
} as const
