/*
 * The daemons of the other hosts of a net (`userdma net`): those of the same user, whose sockets are beside this one's.
 * A checker asks them about the other ends of connections, and what the threads of their programs wait for.
 */
import { existsSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { NetFolderNames, type PeerFacts, type PeerQuestion, readPeerFacts } from '../../spec/check/peer-facts.ts'
import type { GraphProcess } from '../../spec/check/thread-waits.ts'
import type { ToolReply, ToolRequest } from '../../uapi/tool.ts'
import { openToolSession, type ToolSession } from '../client/tool-session.ts'

/** Milliseconds within which a daemon answers: it may be overloaded, or stopped. */
const MAX_TIME = 1000
/** Milliseconds for which one is not asked that has not answered. */
const SILENCE = 10_000
/** Hosts that are asked. */
const MAX_HOSTS = 64

interface HostFacts {
  readonly host: string
  readonly facts: PeerFacts
}

/** As this host sees it: what is of no host in the reply is of `host`. */
const seenFrom = (own: string, host: string, process: GraphProcess): GraphProcess => {
  const place = <T extends { readonly host?: string }>({ host: named = host, ...thing }: T) => ({
    ...thing,
    ...(named !== own && { host: named }),
  })
  return {
    ...place(process),
    threads: process.threads.map(thread => ({ ...place(thread), enders: thread.enders.map(place) })),
  }
}

export class NetDaemons {
  /** The name of this host. */
  readonly host: string
  readonly #folder: string
  readonly #sessions = new Map<string, Promise<ToolSession>>()
  /** By host: the last request. */
  readonly #last = new Map<string, Promise<unknown>>()
  /** By host: until when it is not asked. */
  readonly #silent = new Map<string, number>()

  private constructor(host: string, folder: string) {
    this.host = host
    this.#folder = folder
  }

  /** Undefined: the daemon of this socket is of no net. */
  static of(socket: string): NetDaemons | undefined {
    const own = dirname(socket)
    const folder = dirname(own)
    if (basename(socket) !== NetFolderNames.socket || !existsSync(join(folder, NetFolderNames.state))) return undefined
    return new NetDaemons(basename(own), folder)
  }

  /** The other hosts with a daemon. */
  #hosts(): readonly string[] {
    try {
      return (
        readdirSync(this.#folder)
          // A hidden folder is of no host.
          .filter(name => !name.startsWith('.') && name !== this.host && existsSync(this.#socketOf(name)))
          .slice(0, MAX_HOSTS)
      )
    } catch {
      // The net was removed.
      return []
    }
  }

  #socketOf(host: string): string {
    return join(this.#folder, host, NetFolderNames.socket)
  }

  async #sessionOf(host: string): Promise<ToolSession> {
    const known = this.#sessions.get(host)
    if (known !== undefined) return known
    const opening = openToolSession(this.#socketOf(host))
    this.#sessions.set(host, opening)
    const forget = (): void => {
      if (this.#sessions.get(host) === opening) this.#sessions.delete(host)
    }
    opening.then(session => void session.ended.then(forget), forget)
    return opening
  }

  /** One at a time. Undefined: the daemon has ended, refuses, or does not answer in time. */
  #request(host: string, request: ToolRequest): Promise<ToolReply | undefined> {
    const before = this.#last.get(host) ?? Promise.resolve()
    const answered = before.then(() => this.#send(host, request))
    this.#last.set(host, answered)
    return answered
  }

  async #send(host: string, request: ToolRequest): Promise<ToolReply | undefined> {
    if (performance.now() < (this.#silent.get(host) ?? 0)) return undefined
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<undefined>(resolve => {
      timer = setTimeout(() => {
        this.#silent.set(host, performance.now() + SILENCE)
        resolve(undefined)
      }, MAX_TIME)
    })
    const asked = this.#sessionOf(host)
      .then(session => session.request(request))
      .catch(() => undefined)
    try {
      return await Promise.race([asked, late])
    } finally {
      clearTimeout(timer)
    }
  }

  /** Connects with the other daemons, so that they answer at once. */
  connect(): void {
    for (const host of this.#hosts()) this.#sessionOf(host).catch(() => {})
  }

  /** The other end of a connection; undefined: no host that answers has the address. */
  async peer(question: PeerQuestion): Promise<HostFacts | undefined> {
    const found = this.#hosts().map(async (host): Promise<HostFacts> => {
      const reply = await this.#request(host, { kind: 'peer', ...question })
      const facts =
        reply !== undefined && 'peer' in reply && reply.peer !== null ? readPeerFacts(reply.peer) : undefined
      if (facts === undefined) throw new Error('another host')
      return { host, facts }
    })
    return Promise.any(found).catch(() => undefined)
  }

  /** The processes of the other hosts. */
  async processes(): Promise<readonly GraphProcess[]> {
    const found = await Promise.all(
      this.#hosts().map(async host => {
        const reply = await this.#request(host, { kind: 'thread-waits' })
        const processes = reply !== undefined && 'processes' in reply ? reply.processes : []
        return processes.map(process => seenFrom(this.host, host, process))
      }),
    )
    return found.flat()
  }
}
