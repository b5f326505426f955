/*
 * What findings need of the producer of program events (program-events.ts): `needs` in findings.ts is the table.
 */

/**
 * What a finding needs to know. `call`, `post`, `completion`: those of the program. `peer`: also those of the peer's
 * program. `library`: what only the program's libraries and our preload library know: posts and calls that they refuse,
 * their order, and destroyed objects. `device`: what a device of ours knows at no cost, and recordings of every depth have:
 * why it has failed a request, and what the program has polled when it makes a call. `check`: what costs so much that it is
 * only for the checker, and in recordings with `--record-depth check`: memory, waits, events.
 */
export type Need = 'call' | 'post' | 'completion' | 'peer' | 'library' | 'device' | 'check'

/** What producers of events lack: adapters of the machine (`--host`), and recordings of depth `plain`. */
export const LACKING = { observed: ['device', 'check'], plain: ['library', 'check'] } as const satisfies Readonly<
  Record<string, readonly Need[]>
>
