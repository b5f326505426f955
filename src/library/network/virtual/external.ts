/*
 * What the program waits for outside of its network: Node lists the requests to the operating system, the handles and
 * the timers that keep the process alive. Requests end soon and by themselves. Timers and handles (sockets, processes,
 * workers) are counted from when the network was made, because a test runner has some.
 *
 * Not listed are timers with `unref()` (also those of AbortSignal.timeout) and work in Node's thread pool (zlib,
 * crypto.subtle).
 */

/** Node's resources that are neither requests of the program nor something that it waits for. */
const HARMLESS = new Set(['Immediate', 'TTYWrap', 'CloseReq'])
const STDIO = 'PipeWrap'
/** A request to the operating system: a file, a name, a connection or a write in progress. */
const isRequest = (resource: string): boolean =>
  /Req(?:uest|Wrap|Callback|Promise)?$|WriteWrap$|ShutdownWrap$|SendWrap$|ConnectWrap$/.test(resource)

const WORDS: Readonly<Record<string, string>> = {
  Timeout: 'setTimeout or setInterval',
  TCPSocketWrap: 'a TCP socket',
  TCPServerWrap: 'a TCP server',
  PipeWrap: 'a pipe or local socket',
  PipeServerWrap: 'a local server',
  UDPWrap: 'a UDP socket',
  ProcessWrap: 'a child process',
  MessagePort: 'a port of a worker',
  Worker: 'a worker',
  FSEventWrap: 'fs.watch',
}

const active = (): readonly string[] =>
  typeof process === 'object' && process.getActiveResourcesInfo !== undefined ? process.getActiveResourcesInfo() : []

interface External {
  /** A request is in progress. */
  readonly hasRequests: boolean
  /** Timers and handles that are new since the network was made, as words. */
  readonly added: readonly string[]
  /** Nothing but the network can continue the program. */
  readonly isAlone: boolean
}

/** Real timers of all virtual clocks. */
let ownTimers = 0

/** setTimeout for virtual clocks. Returns the function that stops it. */
export const startOwnTimer = (callback: () => void, milliseconds: number): (() => void) => {
  ownTimers++
  let isSet = true
  const end = (): void => {
    if (isSet) ownTimers--
    isSet = false
  }
  const timer = setTimeout(() => {
    end()
    callback()
  }, milliseconds)
  return () => {
    end()
    clearTimeout(timer)
  }
}

/** Returns a function that looks at what the program waits for now. */
export const watchExternal = (): (() => External) => {
  // Node makes these handles at the first console.log.
  if (typeof process === 'object') void [process.stdout, process.stderr]
  const before = new Map<string, number>()
  for (const resource of active()) before.set(resource, (before.get(resource) ?? 0) + 1)
  before.set('Timeout', (before.get('Timeout') ?? 0) - ownTimers)
  return () => {
    const left = new Map(before).set('Timeout', (before.get('Timeout') ?? 0) + ownTimers)
    let hasRequests = false
    let isAlone = true
    const added = new Set<string>()
    for (const resource of active()) {
      if (HARMLESS.has(resource)) continue
      if (isRequest(resource)) {
        hasRequests = true
        continue
      }
      if (resource !== STDIO && (resource !== 'Timeout' || ownTimers === 0)) isAlone = false
      const known = left.get(resource) ?? 0
      left.set(resource, known - 1)
      if (known <= 0) added.add(WORDS[resource] ?? resource)
    }
    return { hasRequests, added: [...added], isAlone: isAlone && added.size === 0 }
  }
}
