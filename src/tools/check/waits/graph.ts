/*
 * Who waits for whom: finds threads whose waits nobody ends, and the cycle or the end of the chain among them.
 *
 * A wait has an end if something outside of the graph could end it (`isOpen`), or one of its enders goes on. What goes
 * on is found as a fixed point; what remains waits for itself. So a thread of which nothing is known never leads to a
 * finding, and threads that wait long for a client, a clock or a person do neither.
 */
import type { Ender, GraphProcess, GraphThread, ThreadWait, WaitGraph } from '../../../spec/check/thread-waits.ts'
import { processKey as keyOf } from './wait-lines.ts'

/** Threads of a graph that are kept. */
const MAX_THREADS = 200

const threadKey = (thread: { readonly host?: string; readonly pid: number; readonly tid: number }): string =>
  `${keyOf(thread)} ${thread.tid}`

/** Whose end one of these waits for: those that hold something, not whoever may send. */
const isDirected = ({ kind }: ThreadWait): boolean =>
  kind === 'mutex' || kind === 'rwlock' || kind === 'join' || kind === 'child' || kind === 'batch'

/** Adds to the list of a key. */
const add = <K, V>(lists: Map<K, V[]>, key: K, value: V): void => {
  const list = lists.get(key)
  if (list === undefined) lists.set(key, [value])
  else list.push(value)
}

/** The threads whose waits nobody ends. All steps take a time in proportion to the threads and their enders. */
class Stuck {
  readonly #processes: ReadonlyMap<string, GraphProcess>
  /** By key. */
  readonly #threads = new Map<string, GraphThread>()
  /** The threads that a thread could let go, by its key, and those that any thread of a process could. */
  readonly #ofThread = new Map<string, GraphThread[]>()
  readonly #ofProcess = new Map<string, GraphThread[]>()
  /** By process: those that stay, those that wait for one other first. */
  readonly #left = new Map<string, GraphThread[]>()

  constructor(processes: readonly GraphProcess[]) {
    this.#processes = new Map(processes.map(program => [keyOf(program), program]))
    for (const { threads } of processes) for (const thread of threads) this.#threads.set(threadKey(thread), thread)
    const going: GraphThread[] = []
    for (const thread of this.#threads.values()) {
      for (const { tid, ...of } of thread.enders)
        if (tid === undefined) add(this.#ofProcess, keyOf(of), thread)
        else add(this.#ofThread, threadKey({ ...of, tid }), thread)
      if (thread.process) add(this.#ofProcess, keyOf(thread), thread)
      if (thread.isOpen || this.#endsAtOnce(thread)) going.push(thread)
    }
    this.#release(going)
    for (const thread of [...this.#threads.values()].sort((a, b) => Number(isDirected(b)) - Number(isDirected(a))))
      add(this.#left, keyOf(thread), thread)
  }

  /** Whether something of which nothing is known, or that does not wait, could end the wait. */
  #endsAtOnce(thread: GraphThread): boolean {
    const isUnknown = ({ tid, ...of }: Ender): boolean => {
      const program = this.#processes.get(keyOf(of))
      if (program === undefined) return true
      return tid === undefined ? program.others > 0 : !this.#threads.has(threadKey({ ...of, tid }))
    }
    return thread.enders.some(isUnknown) || (thread.process && (this.#processes.get(keyOf(thread))?.others ?? 1) > 0)
  }

  /** These threads go on, and all that they could let go. */
  #release(going: GraphThread[]): void {
    const processes = new Set<string>()
    for (let thread = going.pop(); thread !== undefined; thread = going.pop()) {
      if (!this.#threads.delete(threadKey(thread))) continue
      const process = keyOf(thread)
      going.push(...(this.#ofThread.get(threadKey(thread)) ?? []))
      if (processes.has(process)) continue
      processes.add(process)
      for (const other of this.#ofProcess.get(process) ?? []) going.push(other)
    }
  }

  get all(): readonly GraphThread[] {
    return [...this.#threads.values()]
  }

  has(thread: GraphThread): boolean {
    return this.#threads.has(threadKey(thread))
  }

  /** The thread that a stuck thread waits for, as people say it; undefined: the chain ends here. */
  next(thread: GraphThread): GraphThread | undefined {
    // What another thread could do for it is nothing that people mean.
    if (thread.kind === 'async-event') return undefined
    const own = this.#ofThread.get(threadKey(thread))?.find(other => isDirected(other) && this.has(other))
    if (thread.enders.length === 0) return thread.process ? own : undefined
    const found = thread.enders.flatMap(({ tid, ...of }) => {
      const ender =
        tid === undefined
          ? this.#left.get(keyOf(of))?.find(other => other !== thread)
          : this.#threads.get(threadKey({ ...of, tid }))
      return ender === undefined ? [] : [ender]
    })
    return found.find(isDirected) ?? found[0] ?? own
  }
}

interface Chain {
  readonly shape: 'cycle' | 'end'
  readonly threads: readonly GraphThread[]
}

const directedIn = (threads: readonly GraphThread[]): number => threads.filter(isDirected).length

/** Among cycles: the one with the most threads that wait for one other, then the shortest. */
const bestCycle = (nextOf: ReadonlyMap<GraphThread, GraphThread | undefined>): Chain | undefined => {
  const visited = new Set<GraphThread>()
  let best: readonly GraphThread[] | undefined
  for (const start of nextOf.keys()) {
    const path = new Map<GraphThread, number>()
    let at: GraphThread | undefined = start
    for (; at !== undefined && !visited.has(at); at = nextOf.get(at)) {
      visited.add(at)
      path.set(at, path.size)
    }
    const from = at && path.get(at)
    if (from === undefined) continue
    const cycle = [...path.keys()].slice(from)
    const more = directedIn(cycle) - directedIn(best ?? [])
    if (best === undefined || more > 0 || (more === 0 && cycle.length < best.length)) best = cycle
  }
  return best && { shape: 'cycle', threads: best }
}

/** Without cycles: the chain with the most threads that wait for one other, then the longest. */
const bestChain = (nextOf: ReadonlyMap<GraphThread, GraphThread | undefined>): Chain | undefined => {
  const scores = new Map<GraphThread, number>()
  let best: GraphThread | undefined
  for (const start of nextOf.keys()) {
    const path: GraphThread[] = []
    for (let at: GraphThread | undefined = start; at !== undefined && !scores.has(at); at = nextOf.get(at))
      path.push(at)
    for (const thread of path.reverse()) {
      const next = nextOf.get(thread)
      scores.set(thread, (next === undefined ? 0 : scores.get(next)!) + (isDirected(thread) ? nextOf.size : 1))
    }
    if (best === undefined || scores.get(start)! > scores.get(best)!) best = start
  }
  const threads: GraphThread[] = []
  for (let at = best; at !== undefined; at = nextOf.get(at)) threads.push(at)
  return best && { shape: 'end', threads }
}

/** Processes of which a chain may be a part: of the same programs, and those that are connected to it. */
const partners = ({ threads }: Chain, processes: readonly GraphProcess[]): readonly GraphProcess[] => {
  const commands = new Set(threads.map(({ command }) => command))
  const keys = new Set(threads.flatMap(({ enders }) => enders.map(keyOf)))
  return processes.filter(program => commands.has(program.command) || keys.has(keyOf(program)))
}

/**
 * Whether nobody can doubt it: a loop that polls may wait for other things too, so its program and those that it works
 * with must stand still. A chain of one is what other findings say.
 */
const isDeadlock = (chain: Chain, processes: readonly GraphProcess[], stuck: Stuck): boolean => {
  const { shape, threads } = chain
  const isEnd = shape === 'end' && (threads.length < 2 || !threads.slice(0, -1).some(isDirected))
  if (isEnd) return false
  if (!threads.some(({ kind }) => kind === 'poll' || kind === 'batch')) return true
  return partners(chain, processes).every(
    ({ threads: waiting, others }) => others === 0 && waiting.every(thread => stuck.has(thread)),
  )
}

/** Chains that are looked at. */
const MAX_CHAINS = 16

const withoutEnders = ({ enders: _, process: __, isOpen: ___, ...thread }: GraphThread): ThreadWait => thread

/** The graph of these processes. */
export const waitGraph = (processes: readonly GraphProcess[]): WaitGraph => {
  const stuck = new Stuck(processes)
  const nextOf = new Map(stuck.all.map(thread => [thread, stuck.next(thread)]))
  const best = bestCycle(nextOf) ?? bestChain(nextOf)
  const found = best !== undefined && isDeadlock(best, processes, stuck) ? best : undefined
  const chain = (found ?? best)?.threads ?? []
  const inChain = new Set(chain)
  const rest = processes.flatMap(({ threads }) => threads.filter(thread => !inChain.has(thread)))
  const kept = [...chain, ...rest].slice(0, MAX_THREADS)
  return {
    shape: found?.shape ?? 'open',
    first: chain.slice(0, MAX_THREADS).map((_, i) => i),
    threads: kept.map(withoutEnders),
    more: chain.length + rest.length - kept.length,
  }
}

/**
 * The graph of these processes, and for each further cycle or end of other processes the graph of these alone: what
 * stands still for one reason does not hide what does for another.
 */
export const waitGraphs = (processes: readonly GraphProcess[]): readonly [WaitGraph, ...WaitGraph[]] => {
  const all = waitGraph(processes)
  const further: WaitGraph[] = []
  const told = new Set<string>()
  for (let graph = all, chains = 0; graph.first.length > 0 && chains < MAX_CHAINS; chains++) {
    for (const i of graph.first) told.add(keyOf(graph.threads[i]!))
    const next = waitGraph(processes.filter(program => !told.has(keyOf(program))))
    const own = new Set(next.first.map(i => keyOf(next.threads[i]!)))
    if (next.shape !== 'open')
      further.push({ ...next, threads: next.threads.filter(thread => own.has(keyOf(thread))), more: 0 })
    graph = next
  }
  return [all, ...further]
}
