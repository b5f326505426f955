/*
 * The daemon's part of `userdma check`: what it keeps of programs, what they wait for, and the door to the checker.
 */

import type { ContextWait } from '../../core/driver-contract.ts'
import type { Context, Core } from '../../core/model.ts'
import { createLaterLook } from '../../host/event-loop/timer.ts'
import { mapArena } from '../../host/memory/mapping.ts'
import { commandName, isCopiedByFork, isEnding, lockLimit, privateFileAt } from '../../host/process-status.ts'
import { OTHER_SWITCHES } from '../../settings/fabric.ts'
import { parseWho } from '../../settings/who.ts'
import type { Finding } from '../../spec/check/finding.ts'
import type { ProgramProbes } from '../../spec/check/probes.ts'
import { SCRATCH_BYTES } from '../../spec/check/requests.ts'
import type { DaemonConfig } from '../../uapi/tool.ts'
import type { Containment } from '../containment.ts'
import type { Contexts } from '../context/contexts.ts'
import type { FailureReports } from '../failures.ts'
import { CurrentCall } from './current-call.ts'
import { CheckerDoor } from './door.ts'
import { EventLogs } from './event-log.ts'
import { LendRings } from './lends.ts'
import { CLOCK, OtherHosts } from './other-hosts.ts'
import { otherSubnet } from './other-subnet.ts'
import { PostLogs } from './post-logs.ts'
import { ProgramEnds } from './program-ends.ts'
import { Stacks } from './stacks.ts'
import { Unmappings } from './unmappings.ts'
import { WaitTableFile, WaitTables } from './waits/tables.ts'
import { type ThreadWaitSources, ThreadWaits } from './waits/threads.ts'
import { WaitWatch } from './waits/watch.ts'

/** What the daemon has. */
interface Parts {
  readonly contexts: Contexts
  readonly failures: FailureReports
  readonly containment: Containment
  /** What programs wait for now. */
  readonly waits: (threads: ThreadWaits) => Iterable<ContextWait | undefined>
  readonly devices: ThreadWaitSources['devices']
  readonly cm: ThreadWaitSources['cm']
  /** See `CheckerSources`. */
  readonly tormentName?: ((id: number) => string | undefined) | undefined
  readonly lossTo?: ProgramProbes['lossTo']
}
type Config = Partial<Pick<DaemonConfig, 'adapters' | 'buffers' | 'lent' | 'who' | 'link' | 'fabric' | 'clock'>>

export class DaemonChecker {
  readonly call = new CurrentCall()
  readonly stacks: Stacks
  readonly posts: PostLogs
  readonly unmappings: Unmappings
  readonly lends: LendRings
  readonly ends: ProgramEnds
  readonly hosts: OtherHosts
  readonly threads: ThreadWaits
  readonly waits: WaitWatch
  readonly door: CheckerDoor
  readonly #tables = new WaitTables()

  /** `now`: microseconds. */
  constructor(core: Core, now: () => number, parts: Parts, config: Config = {}) {
    const { contexts, failures, containment, devices, cm } = parts
    const { ownerOf } = failures
    const stackOf = (pid: number, id: number) => this.stacks.of(pid, id)
    const processOf = (context: Context, pid: number) => this.stacks.processOf(ownerOf(context)?.pid, pid)
    this.stacks = new Stacks({
      kept: (...stack) => this.door.stackKept(...stack),
      omitted: count => this.door.event({ event: 'omitted', id: 'stacks', count }),
    })
    this.posts = new PostLogs(contexts, (context, pid, id) => stackOf(processOf(context, pid), id))
    this.unmappings = new Unmappings(now)
    this.lends = new LendRings({ stackOf, event: event => this.door.event(event), now }, containment)
    this.ends = new ProgramEnds(
      core,
      ownerOf,
      pid => this.stacks.has(pid),
      (...end) => this.door.contextEnds(...end),
    )
    this.hosts = new OtherHosts(containment)
    const logs = new EventLogs(contexts, processOf)
    this.door = new CheckerDoor(core, ownerOf, containment, this.#sources(logs, parts, config))
    const { door, hosts } = this
    this.threads = new ThreadWaits({ devices, failures, cm, contexts, tables: this.#tables, stackOf, hosts, door, now })
    this.waits = new WaitWatch(
      () => {
        door.scan()
        const found = [...door.swapWaits(), ...parts.waits(this.threads)].filter(wait => wait !== undefined)
        hosts.askAbout(
          found.map(({ context }) => context),
          door,
        )
        return found
      },
      now,
      (context, wait) => door.waits(context, { ...wait, ...this.threads.graphFor(wait.graph, ownerOf(context)?.pid) }),
      containment,
      context => isEnding(ownerOf(context)?.pid ?? 0),
      ...(config.clock === 'skip' ? [createLaterLook()] : []),
    )
  }

  /** What the checker asks. */
  #sources(
    logs: EventLogs,
    { tormentName, lossTo }: Parts,
    { adapters = [], buffers = 'sampled', lent = 'learnt', who, link, fabric }: Config,
  ): ConstructorParameters<typeof CheckerDoor>[3] {
    const range = who === undefined ? undefined : parseWho(who)
    return {
      scratch: mapArena(SCRATCH_BYTES),
      callStack: () => {
        const stack = this.call.stack ?? []
        return () => stack
      },
      callThread: () => this.call.thread,
      postStack: (...post) => this.posts.stackOf(...post),
      postHash: (...post) => this.posts.hashOf(...post),
      unmapStack: ({ pid }, start, end) => this.unmappings.stackOf(pid, start, end),
      clock: CLOCK,
      askPeer: (...question) => this.hosts.ask(...question),
      isClosed: link === 'memory' && fabric?.startsWith(OTHER_SWITCHES) !== true,
      adapters,
      buffers,
      lent,
      ...(range && { who: range }),
      ...(tormentName && { tormentName }),
      ...(lossTo && { lossTo }),
      lockLimit: ({ pid }) => lockLimit(pid),
      otherSubnet,
      isCopiedByFork: ({ pid }, address) => isCopiedByFork(pid, address),
      privateFile: ({ pid }, address) => privateFileAt(pid, address),
      readLends: () => this.lends.read(),
      events: { logStack: (...id) => this.stacks.of(...id), readLog: () => logs.read() },
      wasKilled: context => this.ends.wasKilled(context),
      closing: context => {
        if (this.ends.wasKilled(context)) this.waits.ended(context)
      },
      channelCloses: (context, channel) => {
        if (this.ends.wasKilled(context)) this.waits.ended(context, channel)
      },
    }
  }

  /** Message WAITS of a process; takes over `fd`. */
  takeWaitTable(session: object, pid: number, namespacePid: number, fd: number): void {
    const file = WaitTableFile.take(fd)
    if (file === undefined) return
    this.#tables.add({ pid, namespacePid, command: commandName(pid) ?? '?', file, session })
    this.lends.add(session, pid, file)
  }

  /** The session of a process has ended. */
  sessionEnded(session: object): void {
    this.#tables.ended(session)
    this.lends.ended(session)
  }

  /** The daemon ends: nothing looks any more. */
  close(): void {
    for (const looking of [this.waits, this.door, this.lends]) looking.close()
  }

  /** As `CheckerDoor.subscribe`; from now on it is looked what programs wait for. */
  subscribe(receive: (finding: Finding) => void): () => void {
    this.waits.start()
    this.hosts.connect()
    return this.door.subscribe(receive)
  }

  /**
   * The frames of all kept stacks, each once, `most` of them: those of threads that wait, and then of the newest
   * processes.
   */
  frames(most: number): readonly string[] {
    const waiting = this.door.findings.flatMap(({ waits }) =>
      (waits?.threads ?? []).flatMap(({ stack, signaled = [] }) => [stack, signaled]),
    )
    return this.stacks.frames(most, waiting)
  }
}
