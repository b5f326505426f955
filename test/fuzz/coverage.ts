/*
 * Code that inputs reach, by V8's precise block coverage through Node's inspector: for each source file, the characters
 * of executed blocks. Reading the coverage takes about a millisecond, so the fuzzer reads it once per batch of
 * mutated inputs.
 */
import { type Profiler, Session } from 'node:inspector'

export interface Coverage {
  /** Counts the characters of code that ran since the last call of either function and that are not recorded. */
  countNew(): number
  /** As `countNew`, and records them, so that they do not count again. */
  recordNew(): number
  /** The recorded characters. */
  total(): number
  stop(): void
}

/** For each character of a source file: `recorded`: 1 if it is recorded; `ran`: 1 if it ran since the last reading. */
interface Script {
  recorded: Uint8Array
  ran: Uint8Array
}

/** Starts to measure code whose URL contains `urlPart`. */
export const watchCoverage = (urlPart: string): Coverage => {
  const session = new Session()
  session.connect()
  const callInspector = <T>(method: string, parameters: object = {}): T => {
    let answer: T | undefined
    session.post(method, parameters, (error, result) => {
      if (error) throw error
      answer = result as T
    })
    return answer as T
  }
  callInspector('Profiler.enable')
  callInspector('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  const scripts = new Map<string, Script>()
  let total = 0

  /** Marks the executed ranges; an inner range comes after its outer one. */
  const markExecuted = (script: Script, functions: readonly Profiler.FunctionCoverage[]): void => {
    const end = functions.reduce((max, { ranges }) => Math.max(max, ranges[0].endOffset), 0)
    if (end > script.recorded.length) {
      const recorded = new Uint8Array(end)
      recorded.set(script.recorded)
      script.recorded = recorded
      script.ran = new Uint8Array(end)
    }
    for (const { ranges } of functions)
      for (const { startOffset, endOffset, count } of ranges) script.ran.fill(count > 0 ? 1 : 0, startOffset, endOffset)
  }
  /** Reads V8's coverage, which V8 then resets; counts the new characters, and with `records` records them. */
  const readNew = (records: boolean): number => {
    const { result } = callInspector<Profiler.TakePreciseCoverageReturnType>('Profiler.takePreciseCoverage')
    let newlyCovered = 0
    for (const { url, functions } of result) {
      if (!url.includes(urlPart)) continue
      const script = scripts.get(url) ?? { recorded: new Uint8Array(0), ran: new Uint8Array(0) }
      scripts.set(url, script)
      markExecuted(script, functions)
      const { recorded, ran } = script
      for (const { ranges } of functions) {
        const { startOffset, endOffset, count } = ranges[0]
        if (count === 0) continue
        for (let i = startOffset; i < endOffset; i++) {
          if (ran[i] === 0 || recorded[i] !== 0) continue
          newlyCovered++
          if (records) recorded[i] = 1
        }
      }
      ran.fill(0)
    }
    if (records) total += newlyCovered
    return newlyCovered
  }
  readNew(true)
  return {
    countNew: () => readNew(false),
    recordNew: () => readNew(true),
    total: () => total,
    stop() {
      callInspector('Profiler.stopPreciseCoverage')
      session.disconnect()
    },
  }
}
