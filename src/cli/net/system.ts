/*
 * The namespaces of a net, by `ip`, `tc`, `nsenter` and `unshare`.
 *
 * Root's net has named namespaces, userdma-NET-NODE, which `ip netns` shows. Another user's net is in a user and a
 * mount namespace of its own, which a process of ours keeps (the holder); each node's network namespace is a file
 * there, so the kernel removes all when the last process has ended. In both, a process of a host gets a mount namespace
 * with the host's own /etc/hosts and /sys, and a UTS namespace with its name. By that /etc/hosts the processes of a net
 * are found again, whatever their command is (`processesOf`). Folders of which each host has its own are bound from its
 * folder, so that all its programs share them, and `net down` removes them.
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { START_FIELD, statFieldsOf } from '../../host/process-status.ts'
import { findProgram } from '../program/program.ts'
import type { Plan, PlannedHost, PlannedLink } from './plan.ts'
import { isRoot, type NetFolder, type ProcessId } from './state.ts'

/** Tools with the Debian packages that have them. */
const TOOLS = {
  ip: 'iproute2',
  tc: 'iproute2',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  mount: 'mount',
  hostname: 'hostname',
  sh: 'dash',
} as const
type Tool = keyof typeof TOOLS

/** Where Debian has tools of root, which a user's PATH may lack. */
const SYSTEM_FOLDERS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin']

/** The path of a tool. Throws an Error with the package that has it. */
export const tool = (name: Tool): string => {
  const path = findProgram(name) ?? SYSTEM_FOLDERS.map(folder => `${folder}/${name}`).find(found => existsSync(found))
  if (path === undefined)
    throw new Error(`\`${name}\`, which nets need, is not installed (Debian: apt-get install ${TOOLS[name]})`)
  return path
}

/** Throws an Error unless all tools are there. */
export const requireTools = (): void => {
  for (const name of Object.keys(TOOLS) as Tool[]) tool(name)
}

/** Runs a command with lines for its input. Throws an Error with its message. */
const run = ([program, ...args]: readonly string[], input = ''): string => {
  const { status, signal, stdout, stderr, error } = spawnSync(program!, args, { input, encoding: 'utf8' })
  if (status === 0) return stdout
  const reason = error?.message ?? stderr.trim().split('\n')[0]
  throw new Error(`${program!.split('/').at(-1)} ${args.join(' ')}: ${reason || `ended with ${signal ?? status}`}`)
}

const NETNS_FOLDER = '/run/netns'
const PREFIX = 'userdma-'

/** When a process started; undefined if it has ended, also if its parent has not taken its status (a zombie). */
const startOf = (pid: number): string | undefined => {
  const fields = statFieldsOf(pid)
  return fields === undefined || /[ZX]/.test(fields[0]!) ? undefined : fields[START_FIELD]
}

const isRunning = ({ pid, start }: ProcessId): boolean => startOf(pid) === start

/** The first line of what a command prints, which goes on running. Throws an Error with its message. */
const firstLine = ([program, ...args]: readonly string[]): Promise<{ readonly pid: number }> =>
  new Promise((resolve, reject) => {
    const child = spawn(program!, args, { cwd: '/', detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    let errors = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
    child.once('error', reject)
    child.once('close', status => reject(new Error(errors.trim() || `${program} ended with ${status}`)))
    child.stdout.once('data', () => {
      child.stdout.destroy()
      child.stderr.destroy()
      child.unref()
      resolve({ pid: child.pid! })
    })
  })

/** Starts the process that keeps the namespaces of a net without root. Throws an Error. */
export const startHolder = async (folder: NetFolder): Promise<ProcessId> => {
  const script = '"$1" --bind "$2" /etc/hosts && echo ready && exec sleep infinity >/dev/null 2>&1'
  try {
    const { pid } = await firstLine([
      ...[tool('unshare'), '--user', '--map-root-user', '--mount', '--net', '--propagation', 'private', '--'],
      ...[tool('sh'), '-c', script, 'sh', tool('mount'), folder.hostsFile()],
    ])
    return { pid, start: startOf(pid) ?? '' }
  } catch (error) {
    throw new Error(
      `nets need network namespaces, which this system gives only to root (${(error as Error).message}); run \`userdma net\` as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces)`,
      { cause: error },
    )
  }
}

/** Makes each of the files after the first word, `unshare`, a network namespace. */
const NAMESPACES_SCRIPT = 'unshare=$1; shift; for path; do : >"$path"; "$unshare" --net="$path" true; done'

/** The namespaces of one net. */
export class NetSystem {
  readonly #folder: NetFolder
  readonly #holder: ProcessId | undefined
  /** Folders of which each host has its own. */
  readonly #folders: readonly string[]

  constructor(
    folder: NetFolder,
    { holder, plan }: { readonly holder?: ProcessId | undefined; readonly plan?: Pick<Plan, 'folders'> },
  ) {
    this.#folder = folder
    this.#holder = holder
    this.#folders = plan?.folders ?? []
  }

  /** Words before a command that is to run where the net's namespaces are; none for root. */
  get enter(): readonly string[] {
    if (this.#holder === undefined || this.isInside()) return []
    return [tool('nsenter'), '--target', String(this.#holder.pid), '--user', '--mount', '--preserve-credentials', '--']
  }

  /** Whether this process is in the user namespace of the net. */
  isInside(): boolean {
    if (this.#holder === undefined) return true
    try {
      return readlinkSync(`/proc/${this.#holder.pid}/ns/user`) === readlinkSync('/proc/self/ns/user')
    } catch {
      return false
    }
  }

  /** Whether the way into the namespaces exists. */
  canEnter(): boolean {
    return this.#holder === undefined || isRunning(this.#holder)
  }

  /** Throws an Error if the holder has ended, and with it the way into the namespaces. */
  requireHolder(): void {
    if (this.canEnter()) return
    throw new Error(
      `process ${this.#holder?.pid}, which kept the namespaces of the net ${this.#folder.name}, was killed; \`userdma net down ${this.#folder.name}\` removes the rest`,
    )
  }

  /** The path of a node's network namespace, where the net's namespaces are. */
  namespacePath(node: string): string {
    return this.#holder === undefined
      ? `${NETNS_FOLDER}/${this.#namespaceName(node)}`
      : `${this.#folder.path}/${node}.netns`
  }

  #namespaceName(node: string): string {
    return `${PREFIX}${this.#folder.name}-${node}`
  }

  /** Makes the namespaces of nodes. */
  addNamespaces(nodes: readonly string[]): void {
    if (this.#holder === undefined)
      run([tool('ip'), '-batch', '-'], nodes.map(node => `netns add ${this.#namespaceName(node)}\n`).join(''))
    else
      run([
        ...[...this.enter, tool('sh'), '-ec', NAMESPACES_SCRIPT, 'sh', tool('unshare')],
        ...nodes.map(node => this.namespacePath(node)),
      ])
  }

  /** Makes links as pairs of veth interfaces. */
  addLinks(links: readonly PlannedLink[]): void {
    const lines = links.map(({ mtu, ends }) => {
      const [first, second] = ends.map(end => `${end.interface} mtu ${mtu} netns ${this.namespacePath(end.node)}`)
      return `link add name ${first} type veth peer name ${second}`
    })
    this.batch('ip', links[0]!.ends[0].node, lines)
  }

  /** Runs lines of `ip` or `tc` in the namespace of a node. */
  batch(name: 'ip' | 'tc', node: string, lines: readonly string[]): void {
    if (lines.length > 0)
      run(
        [...this.enter, tool('nsenter'), `--net=${this.namespacePath(node)}`, '--', tool(name), '-batch', '-'],
        lines.map(line => `${line}\n`).join(''),
      )
  }

  /** Sets values of /proc/sys, as PATH=VALUE, for the namespace of a node. */
  set(node: string, values: readonly string[]): void {
    const script =
      'for one; do echo "$one" | { IFS== read -r path value && printf %s "$value" >"/proc/sys/$path"; } || exit; done'
    const enter = [...this.enter, tool('nsenter'), `--net=${this.namespacePath(node)}`, '--']
    run([...enter, tool('sh'), '-c', script, 'sh', ...values])
  }

  /** What lines of `ip` print in the namespace of a node, as JSON: an array for each. Throws an Error. */
  lines(node: string, lines: readonly string[]): string {
    const enter = [...this.enter, tool('nsenter'), `--net=${this.namespacePath(node)}`, '--']
    return run([...enter, tool('ip'), '-json', '-batch', '-'], lines.map(line => `${line}\n`).join(''))
  }

  /** What `ip` prints in the namespace of a node. */
  ip(node: string, ...args: readonly string[]): string {
    return run([...this.enter, tool('nsenter'), `--net=${this.namespacePath(node)}`, '--', tool('ip'), ...args])
  }

  /** The command that runs `command` on a host. `variables` are exported to it only, not to the tools before it. */
  hostCommand(
    { name }: Pick<PlannedHost, 'name'>,
    command: readonly string[],
    variables: NodeJS.ProcessEnv = {},
  ): string[] {
    const pairs = Object.entries(variables).filter((pair): pair is [string, string] => pair[1] !== undefined)
    // As with `ip netns exec`, /sys shows the interfaces of the namespace; its control groups stay, of which the
    // working directory keeps the mount. In a user namespace the kernel may refuse both.
    const script = `(cd /sys/fs/cgroup || cd /sys || exit
"$1" -t sysfs sysfs /sys && [ "$PWD" != /sys ] && "$1" -c --rbind . /sys/fs/cgroup) 2>/dev/null
"$2" "$3"
mount=$1
shift 3
while [ "$1" != -- ]; do "$mount" --bind "$1" "$2" || exit 1; shift 2; done
shift
${pairs.map(([variable]) => `${variable}=$1; export ${variable}; shift`).join('\n')}
exec "$@"`
    return [
      ...this.enter,
      ...[tool('nsenter'), `--net=${this.namespacePath(name)}`, '--'],
      ...[tool('unshare'), '--mount', '--uts', '--propagation', 'slave', '--'],
      ...[tool('sh'), '-c', script, 'sh', tool('mount'), tool('hostname'), name],
      ...[this.#folder.hostFolder(name), this.#folder.thisHost],
      ...this.#folders.flatMap(path => [this.#folder.ownFolder(name, path), path]),
      ...[this.#folder.hostsFile(name), '/etc/hosts', '--'],
      ...pairs.map(([, value]) => value),
      ...command,
    ]
  }

  /** The names of root's namespaces of this net that exist. */
  #left(): string[] {
    if (!isRoot() || !existsSync(NETNS_FOLDER)) return []
    return readdirSync(NETNS_FOLDER).filter(name => name.startsWith(this.#namespaceName('')))
  }

  /** Whether anything of the net is left besides its folder. */
  hasLeft(): boolean {
    return this.#left().length > 0 || this.processes().length > 0
  }

  /** All processes of the net: daemons, programs of `net exec` and what these have started. */
  processes(): number[] {
    const namespaces = this.#left().flatMap(name => {
      const found = statSync(`${NETNS_FOLDER}/${name}`, { throwIfNoEntry: false })
      return found === undefined ? [] : [`net:[${found.ino}]`]
    })
    return processesOf(this.#folder, namespaces)
  }

  /** Ends all processes of the net and removes its namespaces. Throws an Error if a process does not end. */
  async remove(): Promise<void> {
    await endProcesses(() => this.processes())
    const left = this.#left()
    // With -force it goes on: a name may be a plain file, if `ip netns add` was killed.
    if (left.length > 0) run([tool('ip'), '-force', '-batch', '-'], left.map(name => `netns delete ${name}\n`).join(''))
  }
}

/** The process ids in /proc, without this process. */
const allProcesses = (): number[] =>
  readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => pid !== process.pid)

/**
 * The processes of this user whose /etc/hosts is one of a net's, and all whose network namespace (as /proc/PID/ns/net)
 * is one of `namespaces`: a program in a container, or of another user.
 */
const processesOf = (folder: NetFolder, namespaces: readonly string[]): number[] => {
  const mark = new RegExp(`/net/${folder.name}/(?:etc\\.|[^/ ]+/)hosts(?://deleted)? /etc/hosts `)
  const files = new Set(
    folder.hostsFiles().flatMap(file => {
      const found = statSync(file, { throwIfNoEntry: false })
      return found === undefined ? [] : [`${found.dev} ${found.ino}`]
    }),
  )
  return allProcesses().filter(pid => {
    try {
      if (namespaces.includes(readlinkSync(`/proc/${pid}/ns/net`))) return true
      // A look at files that the process sees, only if it is ours and its mounts say so: others' may never answer.
      if (statSync(`/proc/${pid}`).uid !== process.geteuid?.()) return false
      if (!mark.test(readFileSync(`/proc/${pid}/mountinfo`, 'latin1'))) return false
      const { dev, ino } = statSync(`/proc/${pid}/root/etc/hosts`)
      return files.has(`${dev} ${ino}`)
    } catch {
      // It has ended, or is another user's.
      return false
    }
  })
}

/** Milliseconds that processes get after SIGTERM, and after SIGKILL. */
const TERM_TIME = 2000
const KILL_TIME = 5000
const LOOK_INTERVAL = 20

/** Ends the processes that `find` finds, also those that start meanwhile. */
const endProcesses = async (find: () => readonly number[]): Promise<void> => {
  const started = performance.now()
  const told = new Set<number>()
  for (;;) {
    const found = find()
    if (found.length === 0) return
    const elapsed = performance.now() - started
    if (elapsed > TERM_TIME + KILL_TIME)
      throw new Error(`processes ${found.join(', ')} of the net do not end, also after SIGKILL`)
    for (const pid of found) {
      const isLate = elapsed > TERM_TIME
      if (told.has(pid) && !isLate) continue
      told.add(pid)
      try {
        process.kill(pid, isLate ? 'SIGKILL' : 'SIGTERM')
      } catch {
        // It has ended.
      }
    }
    await setTimeout(LOOK_INTERVAL)
  }
}
