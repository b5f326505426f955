/*
 * Observed processes and their open files: descriptors are duplicated, inherited by fork, kept over exec and passed to
 * others, and a context lives until the last one is closed.
 */
import { commandName } from '../../host/process-status.ts'
import type { ContextEnd } from '../../spec/check/program-events.ts'
import { type Adapters, adapterOf } from './adapters.ts'
import { FileKind } from './file-layout.ts'
import type { ObservedContext, ObservedObject, ObservedProcess } from './objects.ts'
import type { DescriptorRecord, ObservedRecord } from './records.ts'

/** As Linux keeps them of a command's name (TASK_COMM_LEN - 1). */
const COMMAND_CHARACTERS = 15
/** Maximum children that have recorded nothing yet, of which it is known what they have. */
const MAX_FORKS = 1024

type Started = Extract<ObservedRecord, { readonly kind: 'start' }>

/** Called when the last descriptor of a context is closed. */
type ContextEnded = (context: ObservedContext, how: ContextEnd['how']) => void

export class Processes {
  readonly #adapters: Adapters
  readonly #contextEnded: ContextEnded
  readonly #processes = new Map<number, ObservedProcess>()
  /** What children of forks have, by parent and number, until their START. */
  readonly #forks = new Map<string, Pick<ObservedProcess, 'contexts' | 'events'>>()
  /** Contexts by their numbers. */
  readonly #contexts = new Map<number, ObservedContext>()
  #contextCount = 0

  constructor(adapters: Adapters, contextEnded: ContextEnded) {
    this.#adapters = adapters
    this.#contextEnded = contextEnded
  }

  get contexts(): Iterable<ObservedContext> {
    return this.#contexts.values()
  }

  /** Number of contexts that are open now. */
  get openContexts(): number {
    let count = 0
    for (const { contexts } of this.#processes.values()) for (const { isOpen } of contexts.values()) if (isOpen) count++
    return count
  }

  /** The process with a PID, which is new the first time. */
  of(pid: number): ObservedProcess {
    let process = this.#processes.get(pid)
    if (process === undefined) {
      process = {
        program: { pid, command: commandName(pid) ?? '?' },
        stacks: new Map(),
        contexts: new Map(),
        events: new Map(),
        kept: new Map(),
        calls: new Map(),
        hasEnded: false,
        isLossy: false,
      }
      this.#processes.set(pid, process)
    }
    return process
  }

  context(number: number): ObservedContext | undefined {
    return this.#contexts.get(number)
  }

  /** The context of a queue pair or another object. */
  contextWith(object: ObservedObject): ObservedContext | undefined {
    return [...this.#contexts.values()].find(({ objects }) => objects.get(object.handle) === object)
  }

  /**
   * A child of fork has what its parent had then. A process that starts another program by exec has what it has kept
   * open.
   */
  started(process: ObservedProcess, { command, parent, fork }: Started): void {
    const { program, kept } = process
    const named = { pid: program.pid, command: command.slice(0, COMMAND_CHARACTERS) }
    if (parent !== 0) {
      const inherited = this.#forks.get(`${parent} ${fork}`)
      if (inherited !== undefined) this.#forgetFork(`${parent} ${fork}`, inherited)
      this.#processes.set(program.pid, { ...process, ...inherited, program: named })
      return
    }
    for (const fd of [...process.contexts.keys()]) if (!kept.has(fd)) this.close(process, fd, 'close')
    const { contexts } = process
    const started: ObservedProcess = {
      program: named,
      stacks: new Map(),
      contexts,
      events: new Map(),
      kept: new Map(),
      calls: new Map(),
      hasEnded: false,
      isLossy: process.isLossy && contexts.size > 0,
    }
    this.#processes.set(program.pid, started)
    for (const [fd, record] of kept) if (!contexts.has(fd)) this.opened(started, record)
  }

  forked(process: ObservedProcess, fork: number): void {
    const { contexts, events, program } = process
    if (contexts.size === 0) return
    for (const context of new Set(contexts.values())) context.pendingForks++
    this.#forks.set(`${program.pid} ${fork}`, { contexts: new Map(contexts), events: new Map(events) })
    const [oldest] = this.#forks
    if (this.#forks.size > MAX_FORKS && oldest !== undefined) this.#forgetFork(...oldest)
  }

  #forgetFork(key: string, { contexts }: Pick<ObservedProcess, 'contexts'>): void {
    this.#forks.delete(key)
    for (const context of new Set(contexts.values())) context.pendingForks--
  }

  gone(process: ObservedProcess): void {
    for (const fd of [...process.contexts.keys()]) this.close(process, fd, process.hasEnded ? 'exit' : 'kill')
    this.#processes.delete(process.program.pid)
  }

  opened(process: ObservedProcess, record: DescriptorRecord): void {
    const { fd, fileKind, kind, path } = record
    this.close(process, fd, 'close')
    if (fileKind === FileKind.NETLINK) return
    if (fileKind === FileKind.COMPLETIONS || fileKind === FileKind.ASYNC) {
      process.events.set(fd, this.contextOf(process, Number(path)))
      return
    }
    const context = this.#addContext(process, fd, fileKind, adapterOf(record))
    if (fileKind === FileKind.VERBS) this.#adapters.readGids(context.device)
    if (kind !== 'open') this.#share(context)
  }

  duplicated(process: ObservedProcess, fd: number, from: number): void {
    const events = process.events.get(from)
    this.close(process, fd, 'close')
    const context = process.contexts.get(from)
    if (events !== undefined) process.events.set(fd, events)
    if (context !== undefined) process.contexts.set(fd, context)
  }

  passed(process: ObservedProcess, fd: number): void {
    const context = process.contexts.get(fd)
    if (context !== undefined) this.#share(context)
  }

  /** Other processes may use the context: it has objects and keys that no call has shown. */
  #share(context: ObservedContext): void {
    context.isShared = true
    context.isOpen = true
    context.device.knowsAllKeys = false
  }

  close(process: ObservedProcess, fd: number, how: ContextEnd['how']): void {
    process.events.delete(fd)
    const context = process.contexts.get(fd)
    if (context === undefined) return
    process.contexts.delete(fd)
    for (const { contexts } of this.#processes.values())
      for (const held of contexts.values()) if (held === context) return
    if (context.pendingForks > 0) return
    this.#contextEnded(context, how)
    this.#contexts.delete(context.id)
  }

  /** The context of a descriptor. If its opening was not recorded, its objects are not known. */
  contextOf(process: ObservedProcess, fd: number, fileKind: number = FileKind.VERBS): ObservedContext {
    const known = process.contexts.get(fd)
    if (known !== undefined) return known
    const context = this.#addContext(process, fd, fileKind, undefined)
    this.#share(context)
    return context
  }

  #addContext(process: ObservedProcess, fd: number, fileKind: number, adapter: string | undefined): ObservedContext {
    const context: ObservedContext = {
      id: ++this.#contextCount,
      fileKind,
      process,
      device: this.#adapters.named(adapter ?? `fd ${fd} of process ${process.program.pid}`),
      isOpen: false,
      isShared: false,
      pendingForks: 0,
      mode: { hasPkeys: fileKind === FileKind.MAD, isUsed: false },
      objects: new Map(),
      descriptors: new Map(),
    }
    process.contexts.set(fd, context)
    this.#contexts.set(context.id, context)
    return context
  }

  /** libibverbs tells the device's name once the context is open, before there are objects. */
  named(context: ObservedContext, name: string): void {
    if (context.objects.size === 0) context.device = this.#adapters.named(name)
    else context.device.name = name
    this.#adapters.readGids(context.device)
  }
}
