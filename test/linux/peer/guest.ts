/*
 * A guest with Linux's soft device (rdma_rxe), which the script `kernel-peer` starts in a network namespace and folder
 * of this process.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { scaled } from '../../limits.ts'
import { repoRoot } from '../../paths.ts'
import { type Finished, type Running, run, type Scope, start, temporaryFolder } from '../../system/programs.ts'
import { findTool, inCi } from '../../tools.ts'

export const HOST = { 4: '10.77.0.1', 6: 'fd77::1' } as const
export const GUEST = { 4: '10.77.0.2', 6: 'fd77::2' } as const
/** Indices of the guest's addresses in its GID table; index 0 is link-local. */
export const GUEST_GID = { 4: 1, 6: 2 } as const

/**
 * Values of KERNEL_PEER_SUITE for the guest's kernels; '': the host's Debian release. Debian's newest kernel is 7.3.4
 * in November 2026, with the programs of Debian 13.
 */
const SUITES = { 'Linux 6.1': '', 'Linux 6.12': 'trixie', 'newest Linux': 'trixie-backports' } as const
export type Kernel = keyof typeof SUITES

const script = join(repoRoot, 'test', 'linux', 'peer', 'kernel-peer')

/** Of libraries, here and in the guest. */
const LIBRARIES = '/usr/lib/x86_64-linux-gnu'

const whatGuestLacks = (): string | false => {
  if (process.arch !== 'x64') return 'the guest needs x86-64'
  const missing = ['qemu-system-x86_64', 'mke2fs', 'ip', 'apt-get', 'dpkg-deb'].filter(tool => !findTool(tool))
  if (missing.length > 0)
    return `missing: ${missing.join(', ')} (node scripts/setup.mjs --for long says what to install)`
  return process.getuid?.() !== 0 && 'the guest needs root, for its network'
}

/** Why no guest can run on this machine, or false. Throws in CI instead of giving a reason. */
export const whyNoGuest = (): string | false => {
  const why = whatGuestLacks()
  if (why !== false && inCi()) throw new Error(`${why}; in CI a test that cannot run is a failure`)
  return why
}

export interface Guest {
  /** The network namespace of the host's side. */
  readonly netns: string
  /** Runs a program in the guest until it ends. */
  exec(scope: Scope, program: string, args: readonly string[]): Promise<Finished>
  /** `limit`: seconds, default LIMIT_SECONDS; scaled. */
  start(scope: Scope, program: string, args: readonly string[], limit?: number): Running
  /** Starts a program on the host's side of the network. */
  startHere(scope: Scope, program: string, args: readonly string[], env: NodeJS.ProcessEnv): Running
  /** Copies a program of the host, and returns its path in the guest. */
  copy(scope: Scope, program: string): Promise<string>
  /** Puts a folder or file of the host into the guest's view, and returns its path there. */
  share(path: string): string
  /** Copies a library of the host, which has the same release of Debian, by its file's name. */
  installLibrary(scope: Scope, file: string): Promise<unknown>
  untilListening(scope: Scope, port: number): Promise<void>
  /** Waits until a server of rdma_cm listens in the guest. */
  untilConnectable(scope: Scope, port: number): Promise<unknown>
  /** A counter of the guest's port, by its file. `hw_counters/rcvd_pkts` counts accepted packets, with valid ICRC. */
  counter(scope: Scope, name: string): Promise<number>
  /** Waits until a counter exceeds a value. */
  untilCounted(scope: Scope, name: string, above: number): Promise<unknown>
  signal(scope: Scope, program: string, signal: 'STOP' | 'CONT'): Promise<unknown>
  /** A command line that runs a program on the host with the guest's libraries. */
  withGuestLibraries(scope: Scope, program: string): readonly string[]
  /**
   * Lets the guest's IP accept the group until the scope ends: Linux's rxe does not join groups, and gets only packets
   * that IP accepts. Meanwhile the guest's packets to the group stay in the guest.
   */
  joinGroup(scope: Scope, group: string): Promise<void>
  /** Lets the guest drop a percentage of the packets that it sends. */
  lose(scope: Scope, percent: number): Promise<void>
  /** Lets the guest set CE in a percentage of the packets that it sends with ECT, and drop as many of the others. */
  mark(scope: Scope, percent: number): Promise<void>
}

/** A pattern of a listening socket's line in /proc/net/tcp. */
const listening = (port: number): string => {
  const TCP_LISTEN = '0A'
  return `:${port.toString(16).toUpperCase().padStart(4, '0')} 0*:0000 ${TCP_LISTEN}`
}

/** Default time limit of a program. */
const LIMIT_SECONDS = 110

/** Boots a guest; the end of the scope stops it. */
export const startGuest = async (scope: Scope, kernel: Kernel): Promise<Guest> => {
  const netns = `udpeer${process.pid}`
  const env: NodeJS.ProcessEnv = { ...process.env, KERNEL_PEER_RUN: temporaryFolder(scope) }
  env.KERNEL_PEER_SUITE = SUITES[kernel]
  const netnsAdd = spawnSync('ip', ['netns', 'add', netns], { encoding: 'utf8' })
  if (netnsAdd.status !== 0) throw new Error(`ip netns add ${netns}: ${netnsAdd.stderr}`)
  scope.after(() => {
    spawnSync(script, ['down'], { env })
    spawnSync('ip', ['netns', 'delete', netns])
  })
  const up = await run(scope, script, ['up', '--netns', netns], { env })
  if (up.status !== 0) throw new Error(`the guest did not start: ${up.stderr}`)
  const sharedFolder = spawnSync(script, ['dir'], { env, encoding: 'utf8' }).stdout.trim()

  const startProgram = (testScope: Scope, program: string, args: readonly string[], limit = LIMIT_SECONDS): Running =>
    start(testScope, script, ['exec', '-t', String(scaled(limit)), '--', program, ...args], { env })
  const exec = (testScope: Scope, program: string, args: readonly string[]): Promise<Finished> =>
    startProgram(testScope, program, args).ended
  const command = async (testScope: Scope, operation: string, line: string): Promise<string> => {
    const { status, stdout, stderr } = await exec(testScope, 'bash', ['-c', line])
    if (status !== 0) throw new Error(`${operation}: status ${status} in the guest: ${stderr}`)
    return stdout
  }
  const until = (testScope: Scope, problem: string, condition: string): Promise<string> =>
    command(testScope, problem, `for i in $(seq 600); do ${condition} && exit; sleep 0.05; done; exit 1`)
  const untilPort = (testScope: Scope, port: number, condition: string): Promise<string> =>
    until(testScope, `nothing listens on port ${port}`, condition)
  const netem = (testScope: Scope, effect: string): Promise<string> =>
    command(testScope, 'tc', `tc qdisc replace dev eth0 root netem limit 20000 ${effect}`)
  const counterFile = (name: string): string => `/sys/class/infiniband/rxe0/ports/1/${name}`
  const copied = new Set<string>()
  return {
    netns,
    exec,
    start: startProgram,
    startHere: (testScope, program, args, programEnv) =>
      start(testScope, 'ip', ['netns', 'exec', netns, program, ...args], { env: programEnv }),
    async copy(testScope, program) {
      const name = basename(program)
      const guestPath = `/tmp/${name}`
      if (copied.has(program)) return guestPath
      copyFileSync(program, join(sharedFolder, name))
      await command(testScope, `copying ${name}`, `cp /host/${name} ${guestPath}`)
      copied.add(program)
      return guestPath
    },
    share(path) {
      const name = basename(path)
      cpSync(path, join(sharedFolder, name), { recursive: true, verbatimSymlinks: true })
      return `/host/${name}`
    },
    installLibrary(testScope, file) {
      // Not `share`: the shared folder need not have links.
      copyFileSync(join(LIBRARIES, file), join(sharedFolder, file))
      return command(testScope, file, `cp /host/${file} ${LIBRARIES}/`)
    },
    async untilListening(testScope, port) {
      await untilPort(testScope, port, `grep -q "${listening(port)}" /proc/net/tcp /proc/net/tcp6`)
    },
    untilConnectable: (testScope, port) =>
      untilPort(testScope, port, `rdma resource show cm_id | grep -q "state LISTEN.* src-addr [^ ]*:${port} "`),
    async counter(testScope, name) {
      return Number(await command(testScope, name, `cat ${counterFile(name)}`))
    },
    untilCounted: (testScope, name, above) =>
      until(testScope, `${name} stays at ${above}`, `test $(cat ${counterFile(name)}) -gt ${above}`),
    signal: (testScope, program, signal) =>
      command(
        testScope,
        signal,
        `grep -lxs ${program} /proc/[0-9]*/comm | while IFS=/ read -r _ _ pid _; do kill -${signal} $pid; done`,
      ),
    withGuestLibraries(testScope, program) {
      const folder = temporaryFolder(testScope)
      const packages = ['libc6', 'libibverbs1', 'ibverbs-providers', 'libnl-3-200', 'libnl-route-3-200']
      const { status, stderr } = spawnSync(script, ['unpack', folder, ...packages], { env, encoding: 'utf8' })
      if (status !== 0) throw new Error(`the guest's libraries: ${stderr}`)
      const libraries = join(folder, 'usr', 'lib', 'x86_64-linux-gnu')
      // libibverbs has a fixed path of its providers. A preloaded provider takes precedence over the host's.
      const provider = join(libraries, 'libibverbs', 'librxe-rdmav34.so')
      const linker = join(libraries, 'ld-linux-x86-64.so.2')
      return [linker, '--library-path', libraries, '--preload', provider, program]
    },
    async joinGroup(testScope, group) {
      const prefix = group.includes(':') ? 128 : 32
      const address = `${group}/${prefix} dev eth0`
      await command(testScope, 'joining', `ip address add ${address} autojoin`)
      // In the guest's scope, since the test's has ended then.
      testScope.after(() => command(scope, 'leaving', `ip address delete ${address}`))
    },
    async lose(testScope, percent) {
      await netem(testScope, `loss ${percent}%`)
    },
    async mark(testScope, percent) {
      await netem(testScope, `loss ${percent}% ecn`)
    },
  }
}

/** Waits until process `pid`, in another network namespace, listens on a TCP port. False if `ended` resolves first. */
export const untilListeningInNamespace = async (
  pid: number,
  port: number,
  ended: Promise<unknown>,
): Promise<boolean> => {
  let hasEnded = false
  void ended.then(() => {
    hasEnded = true
  })
  const pattern = new RegExp(listening(port))
  for (;;) {
    try {
      if (['tcp', 'tcp6'].some(table => pattern.test(readFileSync(`/proc/${pid}/net/${table}`, 'utf8')))) return true
    } catch {
      return false
    }
    if (hasEnded) return false
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

/** Installs this checkout's package in the guest. Returns the path of the command there. */
export const installUserdma = async (scope: Scope, guest: Guest): Promise<string> => {
  const packages = temporaryFolder(scope)
  const packager = join(repoRoot, 'scripts', 'package.mjs')
  execFileSync(process.execPath, [packager, 'tarball', '--arch', 'x64', '--output', packages], { stdio: 'ignore' })
  const unpacked = temporaryFolder(scope)
  execFileSync('tar', ['-xJf', join(packages, readdirSync(packages)[0]!), '-C', unpacked])
  await guest.installLibrary(scope, 'libstdc++.so.6')
  return `${guest.share(join(unpacked, readdirSync(unpacked)[0]!))}/bin/userdma`
}
