/*
 * A guest with Linux's own soft device (rdma_rxe) for tests, by way of the script `kernel-peer` beside this file: in a
 * network namespace and with a folder of its own, so that several runs do not meet. The host's side of the network has
 * 10.77.0.1 and fd77::1, the guest 10.77.0.2 and fd77::2.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../paths.ts'
import { type Finished, type Running, run, type Scope, start, temporaryFolder } from '../system/programs.ts'
import { findTool, inCi } from '../tools.ts'

export const HOST = { 4: '10.77.0.1', 6: 'fd77::1' } as const
export const GUEST = '10.77.0.2'

const script = join(repoRoot, 'test', 'peer', 'kernel-peer')

/** Why no guest can run here, for the option `skip`; in CI that is a failure. */
export const lackingGuest = (): string | false => {
  const missing = ['qemu-system-x86_64', 'mke2fs', 'ip', 'apt-get', 'dpkg-deb'].filter(tool => !findTool(tool))
  const why =
    process.arch !== 'x64'
      ? 'the guest needs x86-64'
      : missing.length > 0
        ? `missing: ${missing.join(', ')} (node scripts/setup.mjs says what to install)`
        : process.getuid?.() !== 0
          ? 'the guest needs root, for its network'
          : false
  if (why !== false && inCi()) throw new Error(`${why}; in CI a test that cannot run is a failure`)
  return why
}

export interface Guest {
  /** Network namespace of the host's side. */
  readonly netns: string
  /** Runs a program in the guest to its end. */
  exec(scope: Scope, program: string, args: readonly string[]): Promise<Finished>
  start(scope: Scope, program: string, args: readonly string[]): Running
  /** Starts a program on the host's side of the network. */
  startHere(scope: Scope, program: string, args: readonly string[], env: NodeJS.ProcessEnv): Running
  /** Waits until a server listens on a TCP port in the guest. */
  untilListening(scope: Scope, port: number): Promise<void>
  /** Packets that the guest's device has accepted, their ICRC above all. */
  acceptedPackets(scope: Scope): Promise<number>
}

/** Boots a guest; it goes with the scope. Throws what the script says if it cannot. */
export const startGuest = async (scope: Scope): Promise<Guest> => {
  const netns = `udpeer${process.pid}`
  const env = { ...process.env, KERNEL_PEER_RUN: temporaryFolder(scope) }
  const added = spawnSync('ip', ['netns', 'add', netns], { encoding: 'utf8' })
  if (added.status !== 0) throw new Error(`ip netns add ${netns}: ${added.stderr}`)
  scope.after(() => {
    spawnSync(script, ['down'], { env })
    spawnSync('ip', ['netns', 'delete', netns])
  })
  // The first time it is built, from Debian's packages. A daemonised qemu keeps no pipe of ours.
  const up = await run(scope, script, ['up', '--netns', netns], { env, limit: 170_000 })
  if (up.status !== 0) throw new Error(`the guest did not start: ${up.stderr}`)
  const exec = (within: Scope, program: string, args: readonly string[]): Promise<Finished> =>
    run(within, script, ['exec', '-t', '50', '--', program, ...args], { env })
  return {
    netns,
    exec,
    start: (within, program, args) => start(within, script, ['exec', '-t', '50', '--', program, ...args], { env }),
    startHere: (within, program, args, programEnv) =>
      start(within, 'ip', ['netns', 'exec', netns, program, ...args], { env: programEnv }),
    async untilListening(within, port) {
      const hex = port.toString(16).toUpperCase().padStart(4, '0')
      const look = `for i in $(seq 600); do grep -q ":${hex} 0*:0000 0A" /proc/net/tcp /proc/net/tcp6 && exit; sleep 0.05; done; exit 1`
      const { status } = await exec(within, 'bash', ['-c', look])
      if (status !== 0) throw new Error(`nothing listens on port ${port} in the guest`)
    },
    async acceptedPackets(within) {
      const path = '/sys/class/infiniband/rxe0/ports/1/hw_counters/rcvd_pkts'
      return Number((await exec(within, 'cat', [path])).stdout)
    },
  }
}

/** Waits until process `pid` of another network namespace listens on a TCP port, or `ended`. */
export const untilListeningThere = async (pid: number, port: number, ended: Promise<unknown>): Promise<boolean> => {
  let over = false
  void ended.then(() => {
    over = true
  })
  const pattern = new RegExp(`:${port.toString(16).toUpperCase().padStart(4, '0')} 0+:0000 0A`)
  for (;;) {
    try {
      if (['tcp', 'tcp6'].some(table => pattern.test(readFileSync(`/proc/${pid}/net/${table}`, 'utf8')))) return true
    } catch {
      return false
    }
    if (over) return false
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
