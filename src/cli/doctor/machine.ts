/*
 * Checks of the machine: Node.js, libraries, limits, kernel, container, network, environment, adapters.
 */
import { spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { koffi } from '../../host/native.ts'
import { hasCapability } from '../../host/process-status.ts'
import { SessionEnv } from '../../spec/session.ts'
import { limitOf } from '../limits.ts'
import { freesLibrary, shimLibrary, waitsLibrary } from '../paths.ts'
import { findProgram } from '../program/program.ts'
import { preloadLibraryVersion } from '../version.ts'
import { type Diagnosis, diagnoser } from './diagnosis.ts'

const OLDEST_NODE = [20, 19] as const
const OLDEST_GLIBC = [2, 28] as const
/** RoCEv2's port. */
const ROCE_PORT = 4791
/** Bytes of locked memory with which common tests can register their buffers. */
const ENOUGH_LOCKED = 64 * 2 ** 20
const ENOUGH_FILES = 1024
/** Bytes of memory that a daemon with a program needs at least. */
const ENOUGH_MEMORY = 512 * 2 ** 20
const MEBIBYTE = 2 ** 20
/** Adapters that are tried, and milliseconds for each. */
const MAX_TRIED = 4
const ADAPTER_MS = 1000
/** Capabilities (linux/capability.h). */
const CAP = { IPC_LOCK: 14, SYS_PTRACE: 19 } as const
/** Values of ptrace_scope (yama): only processes with CAP_SYS_PTRACE may reach memory of others; none may. */
const YAMA = { admins: 2, nobody: 3 } as const

const isOlder = (version: string, [major, minor]: readonly [number, number]): boolean => {
  const [ownMajor = 0, ownMinor = 0] = version.split('.').map(Number)
  return ownMajor < major || (ownMajor === major && ownMinor < minor)
}

/** The text of a file of the system; undefined if it does not exist or may not be read. */
const textOf = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'latin1').trim()
  } catch {
    return undefined
  }
}

const messageOf = (run: () => unknown): string | undefined => {
  try {
    run()
    return undefined
  } catch (error) {
    return (error as Error).message
  }
}

/** Node.js, the system, the processor, the C library. */
export const checkNode = (): readonly Diagnosis[] => {
  const say = diagnoser('node')
  const { node } = process.versions
  const { platform, arch } = process
  if (isOlder(node, OLDEST_NODE))
    return [say('fails', `Node.js ${node} is too old`, `install ${OLDEST_NODE.join('.')} or newer`)]
  if (platform !== 'linux')
    return [say('limited', `this is ${platform}: only devices in a program's own process work`, 'programs need Linux')]
  if (arch !== 'x64' && arch !== 'arm64')
    return [say('limited', `there are no packages for ${arch}`, 'build the C libraries: `npm run build` in a checkout')]
  const { header } = process.report.getReport() as { readonly header?: { readonly glibcVersionRuntime?: string } }
  const glibc = header?.glibcVersionRuntime
  if (glibc === undefined)
    return [say('limited', 'Node.js uses another C library than glibc', 'programs find devices only with glibc')]
  if (isOlder(glibc, OLDEST_GLIBC))
    return [say('fails', `glibc ${glibc} is too old for the preload library`, `it needs ${OLDEST_GLIBC.join('.')}`)]
  return [say('ok', `Node.js ${node} on ${arch}, glibc ${glibc}`)]
}

/** The C libraries and koffi. */
export const checkLibraries = (): readonly Diagnosis[] => {
  const say = diagnoser('libraries')
  const missing = [shimLibrary, freesLibrary, waitsLibrary].map(messageOf).find(message => message !== undefined)
  const noKoffi = messageOf(koffi)
  const { text, isUsable } = preloadLibraryVersion()
  return [
    missing === undefined ? say(isUsable ? 'ok' : 'fails', text) : say('fails', missing),
    ...(noKoffi === undefined ? [] : [say('fails', noKoffi)]),
  ]
}

/** Locked memory, files, mappings. */
export const checkLimits = (): readonly Diagnosis[] => {
  const say = diagnoser('limits')
  const locked = limitOf('Max locked memory')
  const files = limitOf('Max open files')
  const found: Diagnosis[] = []
  if (locked !== undefined && locked < ENOUGH_LOCKED && !hasCapability(process.pid, CAP.IPC_LOCK))
    found.push(
      say(
        'limited',
        `programs can register ${Math.floor(locked / 1024)} KiB of memory each (ulimit -l)`,
        'raise the limit (limits.conf(5), `--ulimit memlock=-1` of a container), or start with --ignore-memlock',
      ),
    )
  if (files !== undefined && files < ENOUGH_FILES)
    found.push(say('limited', `a process may open ${files} files (ulimit -n)`, 'run `ulimit -n 4096` first'))
  return found.length > 0 ? found : [say('ok', 'locked memory and open files suffice')]
}

/** yama's rule about memory of other processes. */
export const checkKernel = (): readonly Diagnosis[] => {
  const say = diagnoser('kernel')
  const scope = Number(textOf('/proc/sys/kernel/yama/ptrace_scope') ?? 0)
  const release = textOf('/proc/sys/kernel/osrelease') ?? 'unknown'
  const advice = 'set /proc/sys/kernel/yama/ptrace_scope to 1 or 0'
  if (scope === YAMA.nobody) return [say('fails', 'the kernel lets no process reach the memory of another', advice)]
  if (scope === YAMA.admins && !hasCapability(process.pid, CAP.SYS_PTRACE))
    return [say('fails', "only root's daemon may reach the memory of programs (ptrace_scope is 2)", advice)]
  return [say('ok', `Linux ${release}; yama's ptrace_scope is ${scope}`)]
}

/** The memory that the control group allows, bytes; undefined: no limit is known. */
const memoryLimit = (): number | undefined => {
  const text = textOf('/sys/fs/cgroup/memory.max') ?? textOf('/sys/fs/cgroup/memory/memory.limit_in_bytes')
  const value = Number(text)
  return Number.isFinite(value) && text !== undefined ? value : undefined
}

/** The kind of container, its memory. */
export const checkContainer = (): readonly Diagnosis[] => {
  const say = diagnoser('container')
  const kinds = { '/.dockerenv': 'docker', '/run/.containerenv': 'podman' }
  const kind = Object.entries(kinds).find(([file]) => existsSync(file))?.[1] ?? process.env.container
  const limit = memoryLimit()
  if (limit !== undefined && limit < ENOUGH_MEMORY)
    return [say('limited', `this control group may use ${Math.floor(limit / MEBIBYTE)} MiB of memory`, 'allow 512 MiB')]
  return [say('ok', kind === undefined || kind === '' ? 'none was recognised' : kind)]
}

/** The error of binding RoCEv2's port at an address; undefined if it can be bound. */
const bindError = (address: string): Promise<string | undefined> =>
  new Promise(resolve => {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
    socket.once('error', error => {
      socket.close()
      resolve((error as NodeJS.ErrnoException).code ?? error.message)
    })
    socket.bind({ port: ROCE_PORT, address, exclusive: true }, () => socket.close(() => resolve(undefined)))
  })

/** Which addresses of the machine can be a device's. */
export const checkUdp = async (): Promise<readonly Diagnosis[]> => {
  const say = diagnoser('udp')
  const addresses = Object.values(networkInterfaces())
    .flatMap(list => list ?? [])
    .filter(({ family, address }) => family === 'IPv4' || !address.startsWith('fe80'))
    .map(({ address }) => address)
  if (addresses.length === 0)
    return [say('fails', 'no interface has an address', 'set one up: `ip link set lo up`; --link memory needs none')]
  const errors = await Promise.all(addresses.map(bindError))
  const free = addresses.filter((_, i) => errors[i] === undefined)
  const taken = addresses.filter((_, i) => errors[i] === 'EADDRINUSE')
  const taker = "another daemon's device or the kernel's rdma_rxe has it"
  return [
    ...(free.length > 0 ? [say('ok', `addresses for devices: ${free.join(', ')}`)] : []),
    ...(taken.length > 0
      ? [say(free.length > 0 ? 'note' : 'limited', `port ${ROCE_PORT} is in use at ${taken.join(', ')}: ${taker}`)]
      : []),
    ...(free.length === 0 && taken.length === 0
      ? [say('fails', `port ${ROCE_PORT} cannot be bound (${[...new Set(errors)].join(', ')})`)]
      : []),
  ]
}

/** Variables of libraries that change how programs use devices. */
const NOTABLE = /^(?:IBV_|RDMAV_|RXE_|MLX\d_|UCX_|FI_|USERDMA_|ASAN_OPTIONS$|NODE_OPTIONS$)/

/** LD_PRELOAD and the variables of RDMA libraries. */
export const checkEnvironment = (): readonly Diagnosis[] => {
  const say = diagnoser('environment')
  const { LD_PRELOAD: preload = '' } = process.env
  const others = preload.split(/[\s:]+/).filter(path => path !== '' && !path.includes('libuserdma_'))
  const names = Object.keys(process.env).filter(name => NOTABLE.test(name))
  const socket = process.env[SessionEnv.socket]
  return [
    ...(others.length > 0 ? [say('note', `LD_PRELOAD also has ${others.join(', ')}`)] : []),
    ...(socket ? [say('note', `programs use the daemon at ${socket} (${SessionEnv.socket})`)] : []),
    ...(names.length > 0 ? [say('note', `programs inherit ${names.join(', ')}`)] : []),
    ...(others.length + names.length === 0 ? [say('ok', 'nothing that concerns RDMA')] : []),
  ]
}

const ADAPTERS = '/sys/class/infiniband'

/**
 * Why a program cannot make a queue pair on an adapter; undefined: it can, or ibv_rc_pingpong, which tries it, is
 * missing. Virtual machines have adapters that are there, with an active port, and refuse each.
 */
const refusalOf = (adapter: string): string | undefined => {
  const program = findProgram('ibv_rc_pingpong')
  if (program === undefined) return undefined
  // With a queue pair it waits for a client.
  const { status, stderr } = spawnSync(program, ['-d', adapter, '-g', '0', '-p', '0'], {
    encoding: 'utf8',
    timeout: ADAPTER_MS,
    killSignal: 'SIGKILL',
  })
  return status === null ? undefined : `${stderr.trim().split('\n').at(-1)}, says ibv_rc_pingpong`
}

/** The kernel's own devices, which programs under `run` do not see. */
export const checkAdapters = (): readonly Diagnosis[] => {
  const say = diagnoser('adapters')
  const names = existsSync(ADAPTERS) ? readdirSync(ADAPTERS) : []
  if (names.length === 0) return [say('ok', 'none: programs under userdma need none')]
  const half = names.slice(0, MAX_TRIED).flatMap(name => {
    const refusal = refusalOf(name)
    const state = textOf(join(ADAPTERS, name, 'ports', '1', 'state')) ?? 'unknown'
    return refusal === undefined
      ? []
      : say(
          'limited',
          `${name}: no program can make a queue pair on it (${refusal}), though it is there, its port ${state}`,
          'run programs under `userdma run`: they see its devices instead of this one',
        )
  })
  return [say('note', `${names.join(', ')}: programs under \`userdma run\` see userdma's devices instead`), ...half]
}
