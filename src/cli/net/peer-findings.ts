/*
 * Findings about programs on the other hosts of a net, while a program runs on this one: the cause of a failure may be
 * at its other end. The daemons of the net check programs if its file has `check: true`.
 */
import { openToolSession, type ToolSession } from '../../daemon/client/tool-session.ts'
import type { Finding } from '../../spec/check/finding.ts'

/** Whether the daemon at the socket checks programs. Throws an Error if there is none. */
export const checksPrograms = async (socket: string): Promise<boolean> => {
  const session = await openToolSession(socket)
  try {
    return (await session.config()).check === true
  } finally {
    session.close()
  }
}

/** A finding of a host's daemon: what it has of no other host is of this one. */
export const onHost = (finding: Finding, host: string): Finding => ({
  ...finding,
  host,
  ...(finding.story?.some(line => line.host !== undefined) && {
    story: finding.story.map(line => ({ host, ...line })),
  }),
  ...(finding.waits && {
    waits: { ...finding.waits, threads: finding.waits.threads.map(thread => ({ host, ...thread })) },
  }),
})

export class PeerFindings {
  readonly #onFinding: (finding: Finding) => void
  readonly #sessions = new Map<string, ToolSession>()
  /** Hosts whose daemons do not check programs. */
  readonly #unchecked: string[] = []
  readonly #counts = new Map<string, readonly number[]>()

  constructor(onFinding: (finding: Finding) => void) {
    this.#onFinding = onFinding
  }

  /** `sockets`: of the hosts' daemons. `hang`: see `subscribeFindings`. */
  async open(sockets: ReadonlyMap<string, string>, hang: number | undefined): Promise<void> {
    const openOne = async ([host, socket]: readonly [string, string]): Promise<void> => {
      const onFinding = (finding: Finding): void => this.#onFinding(onHost(finding, host))
      // A host whose daemon has ended has no programs.
      const session = await openToolSession(socket, { onFinding }).catch(() => undefined)
      if (session === undefined) return
      this.#sessions.set(host, session)
      if ((await session.config()).check === true) await session.subscribeFindings(hang, true)
      else this.#unchecked.push(host)
    }
    await Promise.all([...sockets].map(openOne))
  }

  /** All findings so far have arrived when it resolves. */
  async end(): Promise<void> {
    for (const [host, session] of this.#sessions) {
      if (this.#unchecked.includes(host)) continue
      const counted = await session.counts().catch(() => undefined)
      if (counted !== undefined) this.#counts.set(host, counted.counts)
    }
  }

  /** How often a finding of another host was found; undefined for one of this host. */
  countOf({ host, number }: Finding): number | undefined {
    return host === undefined ? undefined : this.#counts.get(host)?.[number - 1]
  }

  /** Says that findings are of one end only. `file`: the net's topology. */
  warnUnchecked(file: string): void {
    if (this.#unchecked.length === 0) return
    const hosts = this.#unchecked.sort().join(', ')
    const [daemons, do_] = this.#unchecked.length === 1 ? ['daemon', 'does'] : ['daemons', 'do']
    process.stderr.write(
      `userdma check: programs on ${hosts} are not checked, because the ${daemons} there ${do_} not; \`check: true\` in ${file} changes that\n`,
    )
  }

  close(): void {
    for (const session of this.#sessions.values()) session.close()
  }
}
