/*
 * What went wrong in a capture, worst first: rows of spec/captures.ts with the evidence and the frames. A problem is
 * named only if the packets show it; what they leave open is said to be unknown.
 */
import { type CaptureCause, captureCause, severityOrder } from '../../spec/captures.ts'
import type { CaptureAnalysis } from './analysis.ts'
import type { Flow } from './flows/flow.ts'
import { addOfClasses } from './problems/classes.ts'
import { addOfConnection, addOfLoneReject } from './problems/connections.ts'
import { type CaptureProblem, isReliable, ProblemList } from './problems/list.ts'
import { addOfPackets, addOfPath } from './problems/packets.ts'
import { addOfPaths } from './problems/paths.ts'
import { addFailures, addOfAnswers } from './problems/requests.ts'
import { addSlowness } from './problems/slowness.ts'

export type { CaptureProblem } from './problems/list.ts'

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** The problems of a finished analysis, worst first, and their counts. */
export const problemsOf = (
  analysis: CaptureAnalysis,
): { readonly problems: readonly CaptureProblem[]; readonly counts: ReadonlyMap<CaptureCause, number> } => {
  const problems = new ProblemList(analysis)
  addOfPath(problems)
  for (const connection of analysis.connections) addOfConnection(problems, connection)
  for (const reject of analysis.connectionTable.loneRejects) addOfLoneReject(problems, reject)
  const mismatched = new Set<Flow>()
  for (const flow of analysis.flows) {
    const before = problems.counts.get('psn-mismatch')
    const hasRequests = isReliable(flow) && flow.requests > 0
    if (hasRequests) addFailures(problems, flow)
    if (isReliable(flow) && flow.answers > 0 && flow.peer === undefined) addOfAnswers(problems, flow)
    // Repeats that no path can help are no loss.
    const isMismatched = problems.counts.get('psn-mismatch') !== before
    if (isMismatched) mismatched.add(flow)
    addOfPackets(problems, flow)
    if (hasRequests) addSlowness(problems, flow, isMismatched)
  }
  addOfPaths(problems, mismatched)
  addOfClasses(problems)
  const order = ({ cause }: CaptureProblem): number => {
    const { severity, rank } = captureCause(cause)
    return 1000 * severityOrder[severity] + rank
  }
  // All of a cause together, also where another one has its rank.
  problems.list.sort((a, b) => order(b) - order(a) || compare(a.cause, b.cause) || b.weight - a.weight)
  return { problems: problems.list, counts: problems.counts }
}
