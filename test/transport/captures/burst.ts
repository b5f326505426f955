/*
 * Packets that arrive together, as a port delivers them: runs of packets for one queue pair, equal in length except
 * that the last may be shorter. The recording sets the length of a run; packet contents do not matter here.
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
    add(to: number, bytes: Uint8Array, now: number): void {
      const [first] = run
      const last = run.at(-1)
      if (first !== undefined && (to !== row || last!.length < first.length || bytes.length > first.length))
        deliver(now)
      row = to
      run.push(bytes)
      hasPackets = true
    },
    /** The next packet starts another run. */
    cut: deliver,
    /** Ends the burst; false if it is empty. */
    finish(now: number): boolean {
      deliver(now)
      if (hasPackets) node.endBurst(now)
      const hadPackets = hasPackets
      hasPackets = false
      return hadPackets
    },
  }
}
