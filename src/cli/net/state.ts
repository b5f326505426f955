/*
 * The folder of a net: its plan (net.json) and below it a folder of each host with the socket and log of the daemon and
 * the file `hosts`, and in `own` the folders of which each host has its own. Nets are beside the socket of the user's
 * own daemon, in `net/NAME`.
 *
 * A command that changes a net locks it first. The plan is written before anything is made, so that `net down` removes
 * also what a killed `net up` has made.
 *
 * Root's namespaces are those of the whole machine, and the folders of nets are not: XDG_RUNTIME_DIR chooses them. So
 * the locks of root's nets are in one place, with a file for each net that has the path of its folder (the claim).
 */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { makeSocketFolder } from '../../daemon/client/user-socket.ts'
import { takeLock } from '../../host/lock-file.ts'
import { NetFolderNames } from '../../spec/check/peer-facts.ts'
import { clockPageOf } from '../../spec/clock-page.ts'
import { isNetName, NET_NAME_RULE } from '../../tools/topology/net-file.ts'
import { UsageError } from '../fail.ts'
import { userdmaScript } from '../paths.ts'
import { hasDaemon, type Plan } from './plan.ts'

export const isRoot = (): boolean => process.geteuid?.() === 0

/** A process, which no other is by chance. */
export interface ProcessId {
  readonly pid: number
  /** When it started, in clock ticks since the boot (proc(5)). */
  readonly start: string
}

export interface NetState {
  /** `starting`: `net up` is at work, or was killed. */
  readonly phase: 'starting' | 'up'
  /** The path of the topology. */
  readonly file: string
  readonly plan: Plan
  /** Without root: the process that keeps the user and mount namespaces. */
  readonly holder?: ProcessId
}

/** An object whose values have these types. */
const hasTypes = (value: unknown, types: Readonly<Record<string, 'string' | 'number' | 'list'>>): boolean =>
  typeof value === 'object' &&
  value !== null &&
  Object.entries(types).every(([key, type]) => {
    const found = (value as Readonly<Record<string, unknown>>)[key]
    return type === 'list' ? Array.isArray(found) : typeof found === type
  })

/** Whether a file's value is a state, as far as commands rely on it. */
const isState = (value: unknown): value is NetState => {
  if (!hasTypes(value, { phase: 'string', file: 'string' })) return false
  const { plan, holder } = value as NetState
  return (
    hasTypes(plan, {
      ...{ name: 'string', hosts: 'list', switches: 'list', links: 'list', folders: 'list', fabrics: 'list' },
    }) &&
    plan.fabrics.every(fabric =>
      hasTypes(fabric, { node: 'string', switches: 'list', links: 'list', text: 'string' }),
    ) &&
    plan.folders.every(path => typeof path === 'string') &&
    plan.hosts.every(
      host =>
        hasTypes(host, { name: 'string', driver: 'string', interfaces: 'list', names: 'list' }) &&
        host.interfaces.every(
          each =>
            hasTypes(each, { name: 'string', address: 'string' }) &&
            (!hasDaemon(host) || hasTypes(each, { device: 'string' })),
        ),
    ) &&
    (holder === undefined || hasTypes(holder, { pid: 'number', start: 'string' }))
  )
}

/** The folder of all nets of the user; it exists. */
const netsFolder = (): string => {
  const folder = join(dirname(makeSocketFolder()), 'net')
  mkdirSync(folder, { mode: 0o700, recursive: true })
  return folder
}

/** The locks and claims of root's nets. */
const CLAIMS = '/run/userdma-nets'

/** What each host needs of the machine, so that no folder above it can be the host's own. */
const NEEDED: readonly (readonly [path: string, what: string])[] = [
  ['/usr/bin', 'the programs of the machine'],
  ['/usr/lib', 'the libraries of the machine'],
  ['/bin', 'the programs of the machine'],
  ['/sbin', 'the programs of the machine'],
  ['/lib', 'the libraries of the machine'],
  ['/lib64', 'the libraries of the machine'],
  ['/etc/ld.so.cache', 'the settings of the machine'],
  ['/dev/null', 'the devices of the machine'],
  ['/proc/self', 'the processes of the machine'],
  ['/sys/class', 'the devices of the machine'],
  [process.execPath, 'Node.js'],
  [userdmaScript, 'userdma'],
]

/** sun_path without the NUL. */
const MAX_SOCKET_PATH = 107

export class NetFolder {
  readonly name: string
  readonly path: string

  /** `path`: absent for a net of this user. Throws UsageError for a name that no net has. */
  constructor(name: string, path?: string) {
    if (!isNetName(name)) throw new UsageError(`"${name}" is no name of a net: ${NET_NAME_RULE}`)
    this.name = name
    this.path = path ?? join(netsFolder(), name)
  }

  hostFolder(host: string): string {
    return join(this.path, host)
  }

  socket(host: string): string {
    return join(this.path, host, NetFolderNames.socket)
  }

  /** Where the daemon of InfiniBand switches, on `node`, serves the ports of hosts. */
  ports(node: string): string {
    return join(this.path, node, 'ports')
  }

  /**
   * Where the programs of each host find its folder. It is one path: launchers of MPI and Slurm give processes of one
   * host the environment of another.
   */
  get thisHost(): string {
    return join(this.path, '.host')
  }

  /** Beside it is the page of the clock of all hosts, if it skips, as beside the socket of a daemon. */
  get clock(): string {
    return join(this.path, 'net')
  }

  get clockPage(): string {
    return clockPageOf(this.clock)
  }

  /** Whether this process is on a host of the net: the folder is that of the host. */
  get isOnHost(): boolean {
    return existsSync(join(this.thisHost, 'hosts'))
  }

  /** The socket of the daemon of the host on which a program runs. */
  get socketOfThisHost(): string {
    return join(this.thisHost, NetFolderNames.socket)
  }

  /** The file that is /etc/hosts of all processes of a host, or of the holder. */
  hostsFile(host?: string): string {
    return host === undefined ? join(this.path, 'etc.hosts') : join(this.path, host, 'hosts')
  }

  /** The folder that is at `path` for a host's programs. */
  ownFolder(host: string, path: string): string {
    return join(this.path, host, 'own', path)
  }

  /** Makes the folder that a host has at `path`: empty, with the owner and mode of the machine's. */
  makeOwn(host: string, path: string): void {
    const folder = this.ownFolder(host, path)
    const { uid, gid, mode } = statSync(path)
    mkdirSync(folder, { recursive: true })
    if (isRoot()) chownSync(folder, uid, gid)
    chmodSync(folder, mode & 0o7777)
  }

  /**
   * Throws an Error if the paths are too long for sockets, or cannot be words of `ip -batch`, or if a folder of which
   * each host has its own is none or has the net.
   */
  requireUsablePaths({ hosts, folders, fabrics }: Plan): void {
    for (const path of folders) {
      if (!statSync(path, { throwIfNoEntry: false })?.isDirectory())
        throw new UsageError(`folders: ${path} is no folder of this machine; make it, and each host has its own there`)
      if (`${this.path}/`.startsWith(`${path}/`))
        throw new UsageError(`folders: ${path} has the state of the net, ${this.path}; name folders below it`)
      const needed = NEEDED.find(([below]) => `${below}/`.startsWith(`${path}/`))
      if (needed !== undefined)
        throw new UsageError(`folders: each host needs ${needed[1]}, which ${path} has; name folders below it`)
      if (/^\/(?:proc|sys)\//.test(path))
        throw new UsageError(`folders: ${path} is of the kernel's; a host cannot have its own`)
    }
    if (/[\s'"\\#]/.test(this.path))
      throw new Error(
        `the folder of the net, ${JSON.stringify(this.path)}, has a space, quote, "#" or backslash; set XDG_RUNTIME_DIR to another folder of yours`,
      )
    if (fabrics.length > 0 && this.path.includes(','))
      throw new Error(
        `the folder of the net, ${JSON.stringify(this.path)}, has a comma, which InfiniBand switches cannot have in the path of their socket; set XDG_RUNTIME_DIR to another folder of yours`,
      )
    const sockets = [
      this.socketOfThisHost,
      ...fabrics.map(({ node }) => this.ports(node)),
      ...hosts.map(({ name }) => this.socket(name)),
    ]
    const longest = Math.max(...sockets.map(path => Buffer.byteLength(path)))
    if (longest > MAX_SOCKET_PATH)
      throw new Error(
        `the sockets of the hosts below ${this.path} would have paths of ${longest} bytes, and Linux allows ${MAX_SOCKET_PATH}; set XDG_RUNTIME_DIR to a folder of yours with a shorter path`,
      )
  }

  /** Undefined if there is no such net, or not even its plan. Throws an Error for a damaged state. */
  read(): NetState | undefined {
    const file = join(this.path, NetFolderNames.state)
    try {
      const state: unknown = JSON.parse(readFileSync(file, 'utf8'))
      if (isState(state) && state.plan.name === this.name) return state
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      if (!(error instanceof SyntaxError)) throw error
    }
    throw new Error(
      `the state of the net ${this.name}, ${file}, is damaged; \`userdma net down ${this.name}\` removes the net`,
    )
  }

  /** The process that keeps the namespaces; undefined for root's nets, and where the state does not tell. */
  holder(): ProcessId | undefined {
    try {
      return this.read()?.holder
    } catch {
      return undefined
    }
  }

  /** The files that are /etc/hosts of a process of the net. Not from the state, which may be damaged. */
  hostsFiles(): string[] {
    if (!this.exists()) return []
    const folders = readdirSync(this.path, { withFileTypes: true }).filter(entry => entry.isDirectory())
    return [this.hostsFile(), ...folders.map(({ name }) => this.hostsFile(name))]
  }

  get #claim(): string {
    return join(CLAIMS, this.name)
  }

  /** The folder of root's net of this name, if that is another one. */
  otherFolder(): string | undefined {
    if (!isRoot() || !existsSync(this.#claim)) return undefined
    const path = readFileSync(this.#claim, 'utf8')
    return path !== this.path && existsSync(path) ? path : undefined
  }

  write(state: NetState): void {
    if (isRoot()) writeFileSync(this.#claim, this.path, { mode: 0o600 })
    mkdirSync(this.path, { mode: 0o700, recursive: true })
    const written = join(this.path, 'net.json.new')
    writeFileSync(written, JSON.stringify(state), { mode: 0o600 })
    renameSync(written, join(this.path, NetFolderNames.state))
  }

  exists(): boolean {
    return existsSync(this.path)
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true })
    if (isRoot() && this.otherFolder() === undefined) rmSync(this.#claim, { force: true })
  }

  /** Runs `work` while no other command changes the net. Throws an Error if one does. */
  async locked(work: () => Promise<void>): Promise<void> {
    if (isRoot()) mkdirSync(CLAIMS, { mode: 0o700, recursive: true })
    const lock = await takeLock(`${isRoot() ? this.#claim : this.path}.lock`, 0, `changes the net ${this.name}`)
    try {
      await work()
    } finally {
      lock.release()
    }
  }
}

/** The names of all nets of the user, those of killed commands too. */
export const netNames = (): string[] =>
  readdirSync(netsFolder(), { withFileTypes: true })
    .filter(entry => entry.isDirectory() && isNetName(entry.name))
    .map(entry => entry.name)
    .sort()

export interface ChosenNet {
  readonly folder: NetFolder
  readonly state: NetState
}

/** The net of this name or, without a name, the only one. `at`: its folder, if known. Throws an Error. */
export const chosenNet = (name: string | undefined, at?: string): ChosenNet => {
  const names = at === undefined ? netNames() : [basename(at)]
  if (name === undefined && names.length !== 1)
    throw new Error(
      names.length === 0
        ? 'there is no net; `userdma net up FILE` makes one'
        : `there are several nets: ${names.join(', ')}; name one with --net`,
    )
  const folder = new NetFolder(name ?? names[0]!, at)
  const state = folder.read()
  if (state === undefined)
    throw new Error(`there is no net "${folder.name}"${names.length === 0 ? '' : `; there are ${names.join(', ')}`}`)
  return { folder, state }
}

/** A net that is up. Throws an Error. */
export const runningNet = (name: string | undefined, at?: string): ChosenNet => {
  const found = chosenNet(name, at)
  if (found.state.phase === 'up') return found
  throw new Error(
    `the net ${found.folder.name} is not up: its \`net up\` is at work or was killed; \`userdma net down ${found.folder.name}\` removes what that left`,
  )
}
