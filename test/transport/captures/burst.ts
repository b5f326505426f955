/*
 * Packets that arrive together, as a port delivers them: a burst of runs, each of packets for one queue pair that are
 * equal in length, except that the last may be shorter. Runs are as long as these rules and `endRun` allow.
 */
import type { TestNode } from '../node.ts'

/** Collects packets and hands them to the node as runs. */
export const createBurst = (node: TestNode) => {
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
      const last = run.at(-1)
      if (first !== undefined && (destinationRow !== row || last!.length < first.length || bytes.length > first.length))
        deliver(now)
      row = destinationRow
      run.push(bytes)
      hasPackets = true
    },
    /** The next packet starts another run. */
    endRun: deliver,
    /** Ends the burst; false if it is empty. */
    finish(now: number): boolean {
      deliver(now)
      if (hasPackets) node.endBurst()
      const hadPackets = hasPackets
      hasPackets = false
      return hadPackets
    },
  }
}
