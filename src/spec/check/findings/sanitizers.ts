/*
 * The rows of findings that the sanitizer of a program makes, which knows what devices do with its memory
 * (docs/how-to/debuggers.md).
 */

export const touchedInFlight = {
  severity: 'error',
  needs: ['check', 'preload'],
  title: 'the program uses memory that a request has, before its completion was polled',
  why: "From the post on the memory is the device's, until the completion of the request, or of a later one of its queue, was polled (IBA 10.6). What it sends may be old or new, and what has arrived may be part of a message. Seen by ThreadSanitizer, so only in programs that are built with it; its report is on standard error.",
  advice: 'poll the completion before the memory is used, or post the request later',
  story: 'events',
} as const

export const unorderedAccess = {
  severity: 'warning',
  needs: ['check', 'preload'],
  title: "the program uses memory while a peer's request may use it",
  why: 'A peer reads and writes registered memory at any time. The program knows that it is done by a receive, a completion, or an atomic load that acquires a flag that is written last. A flag that is polled by a plain or volatile load orders nothing for the compiler, and is found too. Seen by ThreadSanitizer, so only in programs that are built with it; its report is on standard error.',
  advice:
    'wait for a message that tells that the peer is done, or load a flag that its last WRITE has written by an atomic load that acquires',
  story: 'events',
} as const

export const outsideObjects = {
  severity: 'error',
  needs: ['check', 'preload'],
  title: 'a device uses memory that is no object of the program',
  why: "A region may be larger than the object in it, and outlive it: the device then sends or overwrites what is freed, beyond an object's end, or in a function's frame that has returned. Seen by AddressSanitizer and valgrind's memcheck, whose report is on standard error.",
  advice: 'give requests and peers only memory that lives until they are done, and no byte beyond its object',
  story: 'events',
} as const
