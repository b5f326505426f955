/*
 * Code reached by an input, from V8's precise block coverage through Node's inspector: for each source file of src/,
 * the characters of executed blocks. Reading it costs about a millisecond, so the fuzzer reads it once per batch of
 * inputs.
 */
import { type Profiler, Session } from 'node:inspector'

export interface Coverage {
  /** As countNew, without recording them: they count again the next time. */
  preview(): number
  /** Characters of code that ran since the last call and never before; records them. */
  countNew(): number
  /** Characters that have run. */
  total(): number
  stop(): void
}

interface Script {
  seen: Uint8Array
  now: Uint8Array
}

/** Starts to measure code whose URL contains `part`. */
export const watchCoverage = (part: string): Coverage => {
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
  let known = 0

  /** Marks the executed ranges; an inner range comes after its outer one. */
  const markExecuted = (script: Script, functions: readonly Profiler.FunctionCoverage[]): void => {
    const end = functions.reduce((max, { ranges }) => Math.max(max, ranges[0].endOffset), 0)
    if (end > script.seen.length) {
      const seen = new Uint8Array(end)
      seen.set(script.seen)
      script.seen = seen
      script.now = new Uint8Array(end)
    }
    for (const { ranges } of functions)
      for (const { startOffset, endOffset, count } of ranges) script.now.fill(count > 0 ? 1 : 0, startOffset, endOffset)
  }
  const take = (note: boolean): number => {
    const { result } = callInspector<Profiler.TakePreciseCoverageReturnType>('Profiler.takePreciseCoverage')
    let newlyCovered = 0
    for (const { url, functions } of result) {
      if (!url.includes(part)) continue
      const script = scripts.get(url) ?? { seen: new Uint8Array(0), now: new Uint8Array(0) }
      scripts.set(url, script)
      markExecuted(script, functions)
      const { seen, now } = script
      for (const { ranges } of functions) {
        const { startOffset, endOffset, count } = ranges[0]
        if (count === 0) continue
        for (let i = startOffset; i < endOffset; i++) {
          if (now[i] === 0 || seen[i] !== 0) continue
          newlyCovered++
          if (note) seen[i] = 1
        }
      }
      now.fill(0)
    }
    if (note) known += newlyCovered
    return newlyCovered
  }
  take(true)
  return {
    preview: () => take(true),
    countNew: () => take(false),
    total: () => known,
    stop() {
      callInspector('Profiler.stopPreciseCoverage')
      session.disconnect()
    },
  }
}
