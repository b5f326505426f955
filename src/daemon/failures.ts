/*
 * Receivers of failures (spec/failures.ts): the daemon's log, one line each with a rate limit per client, and tools
 * that trace the program of the queue pair. `userdma stat --qps` shows the last failure.
 */
import { addFailureHandler } from '../core/failures.ts'
import type { Context, Core } from '../core/model.ts'
import { type Failure, failureJson, failureText, isNote } from '../spec/failures.ts'
import type { FailureRecord } from '../uapi/tool.ts'

/** The program that opened a context. */
export interface Owner {
  readonly pid: number
  readonly command: string
  /** See `TraceHub.watch`. */
  readonly tag: string
}

export interface FailureReports {
  /** From now on failures of this context's objects belong to `owner`. */
  own(context: Context, owner: Owner): void
  ownerOf(context: Context): Owner | undefined
  /** A process has disconnected: reports how many of its failures were not logged. */
  leave(pid: number): void
}

const MICROSECONDS = 1e6
/** Burst of lines, and lines per second: of one client, and of all together. */
const OF_CLIENT = { burst: 20, perSecond: 2 }
const OF_ALL = { burst: 200, perSecond: 20 }
/** Clients whose lines are counted; the oldest is dropped. */
const MAX_CLIENTS = 1024

/** Whether one more line may be logged at `time`. */
const createLimit = ({ burst, perSecond }: typeof OF_CLIENT, begin: number) => {
  let room = burst
  let renewed = begin
  return (time: number): boolean => {
    room = Math.min(burst, room + ((time - renewed) * perSecond) / MICROSECONDS)
    renewed = time
    if (room < 1) return false
    room--
    return true
  }
}

interface Client {
  readonly mayLog: (time: number) => boolean
  /** The program, in a sentence. */
  readonly name: string
  suppressed: number
}

/** The line of a failure, with the process after the queue pair's number. */
const lineOf = (failure: Failure, owner: Owner | undefined): string => {
  const text = failureText(failure)
  if (owner === undefined) return text
  const who = `(${owner.pid}, ${owner.command})`
  const qp = /^QP 0x[0-9a-f]+/.exec(text)?.[0]
  return qp === undefined ? `${who} ${text}` : `${qp} ${who}${text.slice(qp.length)}`
}

/** `post` sends to tools that trace programs with a tag. `now`: microseconds. */
export const createFailureReports = (
  core: Core,
  now: () => number,
  log: (line: string) => void,
  post: (tag: string, record: FailureRecord) => void,
): FailureReports => {
  const owners = new WeakMap<Context, Owner>()
  /** By pid; 0 stands for devices. */
  const clients = new Map<number, Client>()
  const mayLog = createLimit(OF_ALL, now())

  const logSuppressed = (client: Client): void => {
    if (client.suppressed > 0)
      log(`userdma daemon: ${client.suppressed} more failures of ${client.name} were not logged`)
    client.suppressed = 0
  }
  const leave = (pid: number): void => {
    const client = clients.get(pid)
    clients.delete(pid)
    if (client !== undefined) logSuppressed(client)
  }
  const clientOf = (owner: Owner | undefined, time: number): Client => {
    const pid = owner?.pid ?? 0
    const known = clients.get(pid)
    if (known !== undefined) return known
    const [oldest] = clients.keys()
    if (oldest !== undefined && clients.size === MAX_CLIENTS) leave(oldest)
    const name = owner === undefined ? 'devices' : `process ${pid} (${owner.command})`
    const made = { mayLog: createLimit(OF_CLIENT, time), name, suppressed: 0 }
    clients.set(pid, made)
    return made
  }
  const logLine = (owner: Owner | undefined, line: string): void => {
    const time = now()
    const client = clientOf(owner, time)
    if (!client.mayLog(time) || !mayLog(time)) {
      client.suppressed++
      return
    }
    logSuppressed(client)
    log(`userdma daemon: ${line}`)
  }

  addFailureHandler(core, (failure, { name }, context) => {
    const owner = context && owners.get(context)
    if (!isNote(failure)) logLine(owner, `${name}: ${lineOf(failure, owner)}`)
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
    leave,
  }
}
