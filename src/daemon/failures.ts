/*
 * Reports failures (spec/check/failures.ts) to the daemon's log, within rate limits, and to tools that trace the
 * program of the failed object. Notes (`isNote`) are not logged. Of a guest, whose programs may restart without end, a
 * cause is logged once a minute (program-lines.ts).
 */
import { addFailureHandler } from '../core/failures.ts'
import type { Context, ContextProgram, Core } from '../core/model.ts'
import { type Failure, failureTextBy, isNote } from '../spec/check/failures.ts'
import { type FailureRecord, failureRecord } from '../spec/records.ts'
import type { ProgramLines } from './program-lines.ts'

/** The program that opened a context. */
interface Owner extends ContextProgram {
  /** The tag of the program's session, by which `userdma trace` selects programs. */
  readonly tag: string
  /** The uid whose share the program uses, if that is not the daemon's own user. */
  readonly guest?: number | undefined
}

export interface FailureReports {
  /** Failures of the context's objects are attributed to `owner`. */
  setOwner(context: Context, owner: Owner): void
  ownerOf(context: Context): Owner | undefined
  /** Logs how many failures of the process were not logged, and forgets the process. */
  onDisconnect(pid: number): void
}

const MICROSECONDS_PER_SECOND = 1e6
/** Logged failures of one client, and of all clients. Lines about omitted failures may precede each. */
const CLIENT_LIMIT = { burst: 20, perSecond: 2 }
const TOTAL_LIMIT = { burst: 200, perSecond: 20 }
/** What guests leave of TOTAL_LIMIT to the daemon's own user. */
const OWN_TOKENS = TOTAL_LIMIT.burst / 8
/** Maximum number of clients with a limit; the oldest is removed. */
const MAX_CLIENTS = 1024

/**
 * A token bucket: the returned function takes a token if there is one besides `left`. `start`, `time`: microseconds.
 */
const createLimit = ({ burst, perSecond }: typeof CLIENT_LIMIT, start: number) => {
  let tokens = burst
  let renewed = start
  return (time: number, left = 0): boolean => {
    tokens = Math.min(burst, tokens + ((time - renewed) * perSecond) / MICROSECONDS_PER_SECOND)
    renewed = time
    if (tokens < 1 + left) return false
    tokens--
    return true
  }
}

interface Client {
  readonly mayLog: ReturnType<typeof createLimit>
  readonly name: string
  suppressed: number
}

/** The log line of a failure. Pid and command follow the QPN; without QPN they are at the start. */
const lineOf = (failure: Failure, owner: Owner | undefined): string =>
  failureTextBy(failure, owner === undefined ? '' : `(${owner.pid}, ${owner.command})`)

/** `now`: microseconds. `post` sends a record to the tools that trace programs with tag `tag`. */
export const createFailureReports = (
  core: Core,
  now: () => number,
  lines: ProgramLines,
  post: (tag: string, record: FailureRecord) => void,
): FailureReports => {
  const owners = new WeakMap<Context, Owner>()
  /** By pid; 0: failures of no program. */
  const clients = new Map<number, Client>()
  const mayLog = createLimit(TOTAL_LIMIT, now())
  /** Number of omitted failures of removed clients that no line mentions yet. */
  let forgotten = 0

  const write = (text: string): void => lines.write(undefined, '', text)
  const writeSuppressed = (count: number, name: string): void => {
    if (count > 0) write(`${count} more failures of ${name} were not logged`)
  }
  const removeClient = (pid: number): void => {
    const client = clients.get(pid)
    clients.delete(pid)
    if (client === undefined || client.suppressed === 0) return
    // Within the limit, because clients may connect and disconnect at any rate.
    if (mayLog(now())) writeSuppressed(client.suppressed, client.name)
    else forgotten += client.suppressed
  }
  const clientOf = (owner: Owner | undefined, time: number): Client => {
    const pid = owner?.pid ?? 0
    const known = clients.get(pid)
    if (known !== undefined) return known
    const [oldest] = clients.keys()
    if (oldest !== undefined && clients.size === MAX_CLIENTS) removeClient(oldest)
    const name = owner === undefined ? 'devices' : `process ${pid} (${owner.command})`
    const client = { mayLog: createLimit(CLIENT_LIMIT, time), name, suppressed: 0 }
    clients.set(pid, client)
    return client
  }
  const logLineOfGuest = (guest: number, kind: string, line: string): void => {
    if (!lines.isDue(guest, kind)) return
    if (mayLog(now(), OWN_TOKENS)) lines.writeDue(guest, kind, line)
    else forgotten++
  }
  const logLine = (owner: Owner | undefined, line: string): void => {
    const time = now()
    const client = clientOf(owner, time)
    if (!client.mayLog(time) || !mayLog(time)) {
      client.suppressed++
      return
    }
    writeSuppressed(client.suppressed, client.name)
    client.suppressed = 0
    writeSuppressed(forgotten, 'other clients')
    forgotten = 0
    write(line)
  }

  addFailureHandler(core, (failure, { name }, context) => {
    const owner = context && owners.get(context)
    if (!isNote(failure)) {
      const line = `${name}: ${lineOf(failure, owner)}`
      if (owner?.guest === undefined) logLine(owner, line)
      else logLineOfGuest(owner.guest, `${name} ${failure.kind} ${failure.cause.id}`, line)
    }
    post(owner?.tag ?? '', failureRecord(performance.timeOrigin + now() / 1000, owner, failure))
  })

  return {
    setOwner(context, owner) {
      owners.set(context, owner)
      context.program = owner
    },
    ownerOf: context => owners.get(context),
    onDisconnect: removeClient,
  }
}
