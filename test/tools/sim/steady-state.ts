/*
 * The steady state of DCQCN, N equal flows on one link, by two models.
 *
 * The fluid model is that of the paper (Zhu et al., "Congestion Control for Large-Scale RDMA Deployments", SIGCOMM
 * 2015, section 5.1, equations 5 to 9): with all derivatives 0 and rates C/N, one equation for the marking probability
 * p remains. There each mark sets the timer back. In the protocol only a CNP does, and for 50 µs after one no mark
 * leads to another, so steps towards line rate are more frequent, and p is higher. The cycle model has this: from one
 * cut to the next pass 50 µs and an exponentially distributed time, with a step after each 55 µs. Both are solved by
 * bisection, and the queue follows from RED.
 */

import { CNP_INTERVAL, Dcqcn } from '../../../src/spec/congestion.ts'
import { bytesPerMicrosecond } from '../../../src/transport/engine/congestion/dcqcn.ts'

interface SteadyOptions {
  readonly flows: number
  /** Bits/s of the link, and bytes of a packet on it. */
  readonly rate: number
  readonly packetBytes: number
  readonly marking: { readonly min: number; readonly max: number; readonly probability: number }
}

interface SteadyState {
  /** Probability that a packet is marked. */
  readonly marked: number
  /** Bytes of queue. */
  readonly queue: number
  /** Estimate of congestion of each flow. */
  readonly alpha: number
}

/** 1 - (1 - p)^n without loss of digits for small p. */
const anyOf = (p: number, n: number): number => -Math.expm1(n * Math.log1p(-p))

export const fluidFixedPoint = ({ flows, rate, packetBytes, marking }: SteadyOptions): SteadyState => {
  const packets = (bytes: number): number => bytes / packetBytes
  /** R_C, packets/µs. */
  const share = packets(bytesPerMicrosecond(rate)) / flows
  const additive = packets(bytesPerMicrosecond(Dcqcn.additive))
  const stepPackets = [packets(Dcqcn.stepBytes), Dcqcn.stepTime * share]
  const alphaOf = (p: number): number => anyOf(p, Dcqcn.alphaTime * share)

  /** dR_T/dt, with the sign of the decrease, for the R_T at which dR_C/dt is 0. */
  const balance = (p: number): number => {
    const cuts = anyOf(p, CNP_INTERVAL * share) / CNP_INTERVAL
    // (1 - p)^-n - 1, for steps of the byte counter and of the timer
    const gaps = stepPackets.map(n => Math.expm1(-n * Math.log1p(-p)))
    const steps = gaps.reduce((sum, gap) => sum + (share * p) / gap, 0)
    const above = (share * alphaOf(p) * cuts) / steps
    const raises = stepPackets.reduce((sum, n, i) => sum + (share * p * (1 - p) ** (Dcqcn.fastSteps * n)) / gaps[i], 0)
    return above * cuts - additive * raises
  }
  const marked = root(p => -balance(p))
  return { marked, queue: queueAt(marking, marked), alpha: alphaOf(marked) }
}

/** The value between 1e-9 and 1 at which a function falls to 0. */
const root = (falling: (value: number) => number): number => {
  let low = Math.log(1e-9)
  let high = Math.log(0.999)
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2
    if (falling(Math.exp(middle)) > 0) low = middle
    else high = middle
  }
  return Math.exp(low)
}

const queueAt = ({ min, max, probability }: SteadyOptions['marking'], marked: number): number =>
  marked >= probability ? max : min + (marked / probability) * (max - min)

/** A cycle with more steps of the timer is as good as impossible. */
const MAX_STEPS = 4000

/** Without the byte counter, whose steps are rare: 10 MB. */
export const cycleSteadyState = ({ flows, rate, packetBytes, marking }: SteadyOptions): SteadyState => {
  const share = bytesPerMicrosecond(rate) / flows
  const additive = bytesPerMicrosecond(Dcqcn.additive)
  /** Probability that a cycle has at least so many steps. `marks`: of the flow, per µs. */
  const reaches = (steps: number, marks: number): number =>
    steps === 0 ? 1 : Math.exp(-marks * Math.max(0, Dcqcn.stepTime * steps - CNP_INTERVAL))
  // g (1 - alpha) at a cut, and g alpha at each expiry of its timer, which is as long as a step
  const alphaAt = (marks: number): number => {
    let steps = 0
    for (let k = 1; k < MAX_STEPS; k++) steps += reaches(k, marks)
    return 1 / (1 + steps)
  }
  /** Change of the target rate in a cycle: what additive increase adds, without what the cut at the end takes. */
  const change = (marks: number): number => {
    let gap = (share * alphaAt(marks)) / 2
    let raised = 0
    let sum = 0
    for (let k = 0; k < MAX_STEPS; k++) {
      sum += (reaches(k, marks) - reaches(k + 1, marks)) * (raised - gap)
      if (k + 1 >= Dcqcn.fastSteps) {
        raised += additive
        gap += additive
      }
      gap /= 2
    }
    return sum
  }
  const marks = root(change)
  const marked = (marks * packetBytes) / share
  return { marked, queue: queueAt(marking, marked), alpha: alphaAt(marks) }
}
