/*
 * Hands packets to a node in bursts of runs, as a port does. The packets of a run are for one queue pair and have one
 * length; only the last may be shorter.
 */
import type { TestNode } from '../node.ts'

export const createBurst = (node: TestNode) => {
  /** The queue pair's row in the node's engine. */
  let row = -1
  let run: Uint8Array[] = []
  let hasPackets = false
  const deliver = (now: number): void => {
    if (run.length > 0) node.injectRun(run, () => row, now)
    run = []
  }
  return {
    /** Adds a packet for the queue pair in row `destinationRow` of the node's engine. */
    add(destinationRow: number, bytes: Uint8Array, now: number): void {
      const [first] = run
      if (first !== undefined) {
        const endsWithShort = run.at(-1)!.length < first.length
        if (destinationRow !== row || endsWithShort || bytes.length > first.length) deliver(now)
      }
      row = destinationRow
      run.push(bytes)
      hasPackets = true
    },
    /** The next packet starts a new run. */
    endRun: deliver,
    /** Returns false if the burst is empty. */
    finish(now: number): boolean {
      deliver(now)
      if (hasPackets) node.endBurst()
      const hadPackets = hasPackets
      hasPackets = false
      return hadPackets
    },
  }
}
