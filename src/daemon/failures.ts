/*
 * Who hears of failures (spec/failures.ts): the daemon's log, a line each and not more than a reader can follow, and
 * tools that trace the program whose queue pair it is. `userdma stat --qps` shows what failed last.
 */
import { addFailureHandler } from '../core/failures.ts'
import type { Context, Core } from '../core/model.ts'
import { type Failure, failureJson, failureText, isNote } from '../spec/failures.ts'
import type { FailureRecord } from '../uapi/tool.ts'

/** The program that has opened a context. */
export interface Owner {
  readonly pid: number
  readonly command: string
  /** As `TraceHub.watch` has it. */
  readonly tag: string
}

export interface FailureDesk {
  /** From now on, failures of this context's objects are those of `owner`. */
  own(context: Context, owner: Owner): void
  ownerOf(context: Context): Owner | undefined
}

/** Lines of the log at once, and how many more in each second. */
const BURST = 20
const LINES_PER_SECOND = 2
const MICROSECONDS = 1e6

/** The line about a failure, with the process behind the queue pair's number. */
const lineOf = (failure: Failure, owner: Owner | undefined): string => {
  const text = failureText(failure)
  if (owner === undefined) return text
  const who = `(${owner.pid}, ${owner.command})`
  const qp = /^QP 0x[0-9a-f]+/.exec(text)?.[0]
  return qp === undefined ? `${who} ${text}` : `${qp} ${who}${text.slice(qp.length)}`
}

/** `post` tells tools that trace programs with a tag. `now`: microseconds. */
export const createFailureDesk = (
  core: Core,
  now: () => number,
  log: (line: string) => void,
  post: (tag: string, record: FailureRecord) => void,
): FailureDesk => {
  const owners = new WeakMap<Context, Owner>()
  let room = BURST
  let renewed = now()
  let suppressed = 0

  const logLine = (line: string): void => {
    const time = now()
    room = Math.min(BURST, room + ((time - renewed) * LINES_PER_SECOND) / MICROSECONDS)
    renewed = time
    if (room < 1) {
      suppressed++
      return
    }
    room--
    if (suppressed > 0) log(`userdma daemon: ${suppressed} more failures were not logged`)
    suppressed = 0
    log(`userdma daemon: ${line}`)
  }

  addFailureHandler(core, (failure, { name }, context) => {
    const owner = context && owners.get(context)
    if (!isNote(failure)) logLine(`${name}: ${lineOf(failure, owner)}`)
    post(owner?.tag ?? '', {
      time: performance.timeOrigin + now() / 1000,
      pid: owner?.pid ?? 0,
      command: owner?.command ?? '',
      device: name,
      failure: failureJson(failure),
    })
  })

  return {
    own: (context, owner) => void owners.set(context, owner),
    ownerOf: context => owners.get(context),
  }
}
