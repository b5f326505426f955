/*
 * DCQCN at the sender (Zhu et al., "Congestion Control for Large-Scale RDMA Deployments", SIGCOMM 2015, sections 3.1
 * and 5.2): rate control of queue pairs, driven by congestion notification packets (CNPs). Rates are bytes/µs, times
 * are µs and arguments; nothing here knows packets or queue pairs: a row is an index.
 *
 * A CNP cuts the rate by half of `alpha`, an estimate of how often CNPs come. Afterwards, each expiry of a timer and
 * each `byteCounter` sent bytes is one step back: five steps halve the distance to the rate before the cut (fast
 * recovery), later ones raise that target first (additive, then hyper increase). A row at line rate is not limited, and
 * costs nothing. Timers are evaluated when a row is used, so there are no events for them.
 */
import { Dcqcn } from '../../../spec/congestion.ts'

export interface DcqcnParameters {
  /** Rate at which a row starts and beyond which it does not rise. */
  readonly lineRate: number
  /** A cut does not go below this. */
  readonly minRate: number
  /** g: weight of the newest observation in `alpha`. */
  readonly gain: number
  /** K: without a CNP for so long, `alpha` decays. */
  readonly alphaTime: number
  /** T: time of one step of the timer. */
  readonly stepTime: number
  /** B: bytes of one step of the byte counter. */
  readonly stepBytes: number
  /** F: steps of fast recovery. */
  readonly fastSteps: number
  /** R_AI and R_HAI: rates by which additive and hyper increase raise the target. */
  readonly additive: number
  readonly hyper: number
  /** A row that was late may catch up so many µs; 0: it never sends earlier than its rate allows. */
  readonly burst: number
}

/** Bytes/µs of a rate in bits/s. */
export const bytesPerMicrosecond = (bitsPerSecond: number): number => bitsPerSecond / 8e6

/** The published parameters. `lineRate`: bytes/µs; `burst`: as in `DcqcnParameters`. */
export const dcqcnParameters = (lineRate: number, burst: number): DcqcnParameters => {
  const { minShare, additive, hyper, ...published } = Dcqcn
  return {
    ...published,
    lineRate,
    minRate: minShare * lineRate,
    additive: bytesPerMicrosecond(additive),
    hyper: bytesPerMicrosecond(hyper),
    burst,
  }
}

/** A row that came so close to line rate is not limited any more. */
const LINE_SHARE = 0.999

/** Phases of a row: it got no CNP yet; its rate is limited; it is back at line rate. */
const NEW = 0
const LIMITED = 1
const RECOVERED = 2

/** By row. */
export interface RateControl {
  readonly parameters: DcqcnParameters
  phase: Uint8Array
  /** R_C and R_T. */
  rate: Float64Array
  target: Float64Array
  alpha: Float64Array
  /** When `alpha` changed last, and when the current step of the timer began. */
  alphaAt: Float64Array
  stepAt: Float64Array
  /** Steps since the last cut, and bytes of the current step. */
  timeSteps: Float64Array
  byteSteps: Float64Array
  bytes: Float64Array
  /** Until this time the rate is used by what was sent. */
  paidUntil: Float64Array
}

export const createRateControl = (parameters: DcqcnParameters): RateControl => ({
  parameters,
  phase: new Uint8Array(0),
  rate: new Float64Array(0),
  target: new Float64Array(0),
  alpha: new Float64Array(0),
  alphaAt: new Float64Array(0),
  stepAt: new Float64Array(0),
  timeSteps: new Float64Array(0),
  byteSteps: new Float64Array(0),
  bytes: new Float64Array(0),
  paidUntil: new Float64Array(0),
})

const columns = [
  'rate',
  'target',
  'alpha',
  'alphaAt',
  'stepAt',
  'timeSteps',
  'byteSteps',
  'bytes',
  'paidUntil',
] as const satisfies readonly (keyof RateControl)[]

/** Grows the arrays so that they include `row`. */
const growRates = (rates: RateControl, row: number): void => {
  const count = row + Math.max(16, row >> 3)
  for (const name of columns) {
    const larger = new Float64Array(count)
    larger.set(rates[name])
    rates[name] = larger
  }
  const phase = new Uint8Array(count)
  phase.set(rates.phase)
  rates.phase = phase
}

/** Forgets what the row has learnt: its queue pair was reset. */
export const forgetRate = (rates: RateControl, row: number): void => {
  if (row < rates.phase.length) rates.phase[row] = NEW
}

/** The row's rate, bytes/µs, at time `now`. */
export const rateOf = (rates: RateControl, row: number, now: number): number => {
  advance(rates, row, now)
  return isLimited(rates, row) ? rates.rate[row] : rates.parameters.lineRate
}

const isLimited = (rates: RateControl, row: number): boolean => rates.phase[row] === LIMITED

/** Takes one step of the timer or of the byte counter. */
const increase = (rates: RateControl, row: number): void => {
  const { lineRate, fastSteps, additive, hyper } = rates.parameters
  const time = rates.timeSteps[row]
  const bytes = rates.byteSteps[row]
  const both = Math.min(time, bytes) - fastSteps
  if (both > 0) rates.target[row] += both * hyper
  else if (Math.max(time, bytes) >= fastSteps) rates.target[row] += additive
  if (rates.target[row] > lineRate) rates.target[row] = lineRate
  rates.rate[row] = (rates.rate[row] + rates.target[row]) / 2
  if (rates.rate[row] >= LINE_SHARE * lineRate) rates.phase[row] = RECOVERED
}

const decayAlpha = (rates: RateControl, row: number, now: number): void => {
  const { alphaTime, gain } = rates.parameters
  const periods = Math.floor((now - rates.alphaAt[row]) / alphaTime)
  if (periods <= 0) return
  rates.alpha[row] *= (1 - gain) ** periods
  rates.alphaAt[row] += periods * alphaTime
}

/** Evaluates the timers that have expired by `now`. Bounded, because a row soon is at line rate again. */
const advance = (rates: RateControl, row: number, now: number): void => {
  const { stepTime } = rates.parameters
  while (isLimited(rates, row) && now - rates.stepAt[row] >= stepTime) {
    rates.stepAt[row] += stepTime
    rates.timeSteps[row]++
    increase(rates, row)
  }
}

/** A CNP has arrived for the row. */
export const cutRate = (rates: RateControl, row: number, now: number): void => {
  if (row >= rates.phase.length) growRates(rates, row)
  const { lineRate, minRate, gain } = rates.parameters
  advance(rates, row, now)
  if (rates.phase[row] === NEW) rates.alpha[row] = 1
  else decayAlpha(rates, row, now)
  if (!isLimited(rates, row)) {
    rates.rate[row] = lineRate
    rates.paidUntil[row] = now
  }
  rates.phase[row] = LIMITED
  rates.target[row] = rates.rate[row]
  rates.rate[row] = Math.max(minRate, rates.rate[row] * (1 - rates.alpha[row] / 2))
  rates.alpha[row] += gain * (1 - rates.alpha[row])
  rates.alphaAt[row] = now
  rates.stepAt[row] = now
  rates.timeSteps[row] = 0
  rates.byteSteps[row] = 0
  rates.bytes[row] = 0
}

/** Bytes that the row may send now: Infinity at line rate; 0 before `nextSend`. The last packet may exceed it. */
export const allowance = (rates: RateControl, row: number, now: number): number => {
  advance(rates, row, now)
  if (!isLimited(rates, row)) return Number.POSITIVE_INFINITY
  const start = Math.max(rates.paidUntil[row], now - rates.parameters.burst)
  return start > now ? 0 : Math.max(1, (now - start) * rates.rate[row])
}

/** When a row without allowance may send again. */
export const nextSend = (rates: RateControl, row: number): number => rates.paidUntil[row]

/** The row has sent `bytes` bytes. */
export const spend = (rates: RateControl, row: number, bytes: number, now: number): void => {
  if (!isLimited(rates, row)) return
  const { burst, stepBytes } = rates.parameters
  rates.paidUntil[row] = Math.max(rates.paidUntil[row], now - burst) + bytes / rates.rate[row]
  rates.bytes[row] += bytes
  while (rates.bytes[row] >= stepBytes && isLimited(rates, row)) {
    rates.bytes[row] -= stepBytes
    rates.byteSteps[row]++
    increase(rates, row)
  }
}
