/*
 * What findings need of the producer of program events (program-events.ts): `needs` in findings.ts is the table.
 */

/**
 * What a finding needs to know. `call`, `post`, `completion`: those of the program. `peer`: also those of the peer's
 * program. `device`: what only a device of ours or our preload library sees: fetches, packets, memory, waits. Findings
 * without `device` work on adapters of the machine too (`--host`), and of recordings without `--record-depth check`.
 */
export type Need = 'call' | 'post' | 'completion' | 'peer' | 'device'
