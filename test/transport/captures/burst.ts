/*
 * Packets that arrive together, as a port hands them in: as runs of one queue pair's packets of one length, of which
 * only the last may be shorter. How many a run gets is what the recording allows; nothing is known of their contents.
 */
import type { TestNode } from '../node.ts'

/** Packets that arrive together: runs of one queue pair's packets of one length, of which the last may be shorter. */
export const createBurst = (node: TestNode) => {
  let row = -1
  let run: Uint8Array[] = []
  let some = false
  const handIn = (now: number): void => {
    if (run.length > 0) node.injectRun(run, () => row, now)
    run = []
  }
  return {
    add(to: number, bytes: Uint8Array, now: number): void {
      const [first] = run
      const last = run.at(-1)
      if (first !== undefined && (to !== row || last!.length < first.length || bytes.length > first.length)) handIn(now)
      row = to
      run.push(bytes)
      some = true
    },
    /** What follows is another run. */
    cut: handIn,
    /** The burst is over; false if nothing came. */
    finish(now: number): boolean {
      handIn(now)
      if (some) node.endBurst(now)
      const came = some
      some = false
      return came
    },
  }
}
