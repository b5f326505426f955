/*
 * Checks that run something: a device in this process, a program under a daemon; and those of RDMA libraries, of the
 * user's daemon, and of the programs that the user names.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { NoDaemonError } from '../../daemon/client/errors.ts'
import { createNetwork, open } from '../../library/index.ts'
import { attempt } from '../attempt.ts'
import { subnetText } from '../commands/stat.ts'
import { messageOf } from '../fail.ts'
import { joinDaemon } from '../join.ts'
import { openChosenSession } from '../own-daemon.ts'
import { programsOfPackages } from '../program/debian-packages.ts'
import { readElf } from '../program/elf.ts'
import { preloadProblems } from '../program/preload-check.ts'
import { findProgram, ProgramError, programEnvironment, requireProgram } from '../program/program.ts'
import { startedPrograms } from '../program/started-programs.ts'
import { type Diagnosis, diagnoser } from './diagnosis.ts'

const TRY_SECONDS = 20

/** Sends a message between two queue pairs of a device in this process. */
export const checkLibrary = async (): Promise<readonly Diagnosis[]> => {
  const say = diagnoser('library')
  try {
    const device = await open({ network: createNetwork() })
    try {
      const pd = device.pd()
      const sender = pd.rcQp()
      const receiver = pd.rcQp()
      sender.connect(receiver.endpoint)
      receiver.connect(sender.endpoint)
      const memory = pd.register(new Uint8Array([7, 0]), {})
      const [{ bytes }] = await Promise.all([receiver.receive(memory.slice(1, 1)), sender.send(memory.slice(0, 1))])
      if (bytes !== 1 || memory.buffer[1] !== 7) return [say('fails', 'a message of 1 byte did not arrive')]
    } finally {
      await device.close()
    }
    return [say('ok', 'two queue pairs in one process exchanged a message')]
  } catch (error) {
    return [say('fails', messageOf(error))]
  }
}

/** The program that tries a daemon, with its arguments: ibv_devinfo, or one that every system has. */
const probe = (): readonly [string, readonly string[]] =>
  findProgram('ibv_devinfo') === undefined
    ? ['cat', ['/sys/class/infiniband/rxe0/node_guid']]
    : ['ibv_devinfo', ['-d', 'rxe0']]

/** Starts a private daemon, and runs a program that opens its device. */
export const checkPrograms = async (): Promise<readonly Diagnosis[]> => {
  const say = diagnoser('programs')
  try {
    const joined = await joinDaemon({ private: true, link: 'memory' })
    try {
      const [name, args] = probe()
      const path = requireProgram(name)
      const env = programEnvironment(joined.client.socket)
      const { failure, output } = await attempt(path, args, env, {
        seconds: TRY_SECONDS,
        stop: new AbortController().signal,
      })
      if (failure !== undefined) return [say('fails', `${name} under a daemon: ${failure}: ${output.trim()}`)]
      return [say('ok', `${name} has opened rxe0 of a daemon`)]
    } finally {
      await joined.leave()
    }
  } catch (error) {
    return [say('fails', messageOf(error))]
  }
}

const LIBRARY_FOLDERS = ['/usr/lib', '/usr/lib64', '/lib', '/usr/local/lib', '/usr/local/lib64']
  .flatMap(folder => [folder, ...['x86_64', 'aarch64'].map(machine => join(folder, `${machine}-linux-gnu`))])
  .filter(folder => existsSync(folder))

/** The path of an installed library; undefined if the usual folders have none. */
const findLibrary = (name: string): string | undefined =>
  LIBRARY_FOLDERS.map(folder => join(folder, name)).find(path => existsSync(path))

/** The rxe provider of libibverbs: a library in its folder, whose name has the version of the provider interface. */
const findProvider = (): string | undefined =>
  LIBRARY_FOLDERS.map(folder => join(folder, 'libibverbs'))
    .filter(folder => existsSync(folder))
    .flatMap(folder => readdirSync(folder).map(name => join(folder, name)))
    .find(path => basename(path).startsWith('librxe-'))

/** Packages whose programs many guides use. */
const USUAL = ['ibverbs-utils', 'perftest', 'rdmacm-utils', 'iproute2'] as const

/** From the name of the library's file: libibverbs.so.1.14.44.0 is of rdma-core 44.0. */
const rdmaCoreVersion = (library: string): string => {
  const version = /^libibverbs\.so\.1\.\d+\.(\d+\.\d+)$/.exec(basename(realpathSync(library)))?.[1]
  return `rdma-core ${version ?? 'of an unknown version'}`
}

/** rdma-core and its programs. */
export const checkProviders = (): readonly Diagnosis[] => {
  const say = diagnoser('providers')
  const verbs = findLibrary('libibverbs.so.1')
  if (verbs === undefined)
    return [
      say(
        'limited',
        'libibverbs is not installed: only TypeScript programs and those that bring it work',
        'install libibverbs1, ibverbs-providers and ibverbs-utils (Debian), or rdma-core',
      ),
    ]
  const provider = findProvider()
  const missing = USUAL.map(name => [name, programsOfPackages[name]![0]] as const).filter(
    ([, program]) => findProgram(program) === undefined,
  )
  return [
    say('ok', `libibverbs of ${rdmaCoreVersion(verbs)} (${verbs})`),
    provider === undefined
      ? say('fails', "libibverbs has no rxe provider, which userdma's devices need", 'install ibverbs-providers')
      : say('ok', `rxe provider ${provider}`),
    ...(findLibrary('librdmacm.so.1') === undefined
      ? [say('note', 'librdmacm is not installed: programs that connect by address need it', 'install librdmacm1')]
      : []),
    ...(missing.length > 0
      ? [
          say(
            'note',
            `not installed: ${missing.map(([name, program]) => `${program} (${name})`).join(', ')}`,
            `apt install ${missing.map(([name]) => name).join(' ')}`,
          ),
        ]
      : []),
  ]
}

/** The daemon that commands without `--socket` use. */
export const checkDaemon = async (): Promise<readonly Diagnosis[]> => {
  const say = diagnoser('daemon')
  try {
    const client = await openChosenSession()
    const { devices } = await client.stat()
    client.close()
    const names = devices.map(({ name }) => name).join(', ') || 'no devices'
    return [
      say('ok', `a daemon runs at ${client.socket} (process ${client.daemon}): ${names}`),
      ...devices.flatMap(({ name, subnet }) =>
        subnet === undefined || subnet.state === 'ACTIVE'
          ? []
          : [
              say(
                'limited',
                `the InfiniBand port of ${name} is ${subnetText(subnet)}: programs send nothing by it`,
                'start a subnet manager (`userdma run -- opensm`), or the daemon without `manager=none` of `--fabric`',
              ),
            ],
      ),
    ]
  } catch (error) {
    if (error instanceof NoDaemonError)
      return [say('ok', 'none runs; `userdma run` starts one that ends with its last client')]
    return [say('fails', messageOf(error))]
  }
}

/** Libraries with which a program can go around libibverbs' interface. */
const DIRECT_VERBS = /^lib(mlx5|mlx4|efa|hns|mana)\.so/
const RDMA_LIBRARIES = /^lib(ibverbs|rdmacm|ibumad|ibmad|ucp|uct|fabric)\.so/

/** Sanitizers that are told what devices do: a text of their runtime, and a function of it that is looked up. */
const SANITIZERS = [
  { name: 'AddressSanitizer', library: /^lib(?:asan|clang_rt\.asan.*)\.so/, function: '__asan_region_is_poisoned' },
  { name: 'ThreadSanitizer', library: /^lib(?:tsan|clang_rt\.tsan.*)\.so/, function: '__tsan_create_fiber' },
]
/** Larger files are not searched, bytes. */
const MAX_SEARCHED = 1 << 28

const sanitizerText = (name: string, path: string, needed: readonly string[]): readonly Diagnosis[] => {
  const say = diagnoser('program')
  const found = SANITIZERS.find(({ library }) => needed.some(file => library.test(file)))
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0
  const bytes = found !== undefined || size > MAX_SEARCHED ? undefined : readFileSync(path)
  const { name: sanitizer, function: used } = found ?? SANITIZERS.find(row => bytes?.includes(`${row.name}: `)) ?? {}
  if (sanitizer === undefined || used === undefined) return []
  return found === undefined && bytes?.includes(`${used}\0`) !== true
    ? [
        say(
          'limited',
          `${name} has ${sanitizer}, but no symbols of it: it is not told what devices do with its memory`,
          'do not strip it, or link the shared runtime (`userdma help how-to/debuggers`)',
        ),
      ]
    : [say('ok', `${name} has ${sanitizer}, which is told what devices do with its memory`)]
}

const linkedText = (name: string, path: string, needed: readonly string[]): readonly Diagnosis[] => {
  const say = diagnoser('program')
  const rdma = needed.filter(library => RDMA_LIBRARIES.test(library))
  const direct = needed.filter(library => DIRECT_VERBS.test(library))
  const missing = rdma.filter(library => findLibrary(library) === undefined)
  return [
    ...(missing.length > 0 ? [say('fails', `${name} needs ${missing.join(', ')}, which the usual folders lack`)] : []),
    ...(direct.length > 0
      ? [
          say(
            'note',
            `${name} is linked with ${direct.join(', ')}: their own functions (direct verbs) need their adapter`,
          ),
        ]
      : []),
    ...sanitizerText(name, path, needed),
    say(
      'ok',
      rdma.length > 0
        ? `${name} is linked with ${rdma.join(', ')}`
        : `${name} names no RDMA library itself; one that it loads may`,
    ),
  ]
}

/** A program of the user: whether it exists, whether the preload library reaches it, what it is linked with. */
export const checkProgramNamed = (name: string): readonly Diagnosis[] => {
  const say = diagnoser('program')
  try {
    requireProgram(name)
  } catch (error) {
    if (error instanceof ProgramError) return [say('fails', error.message)]
    throw error
  }
  const problems = preloadProblems(name, [])
  if (problems.length > 0)
    return problems.map(found =>
      say(
        'fails',
        `${found.name} will find no devices: ${found.problem}`,
        'see `userdma help reference/cli#what-a-program-sees`',
      ),
    )
  const started = startedPrograms(name, []).map(({ name, path }) => ({
    name,
    path,
    needed: readElf(path)?.needed ?? [],
  }))
  // Launchers and shells are of no interest beside the program that they start.
  const withRdma = started.filter(({ needed }) => needed.some(library => RDMA_LIBRARIES.test(library)))
  return (withRdma.length > 0 ? withRdma : started.slice(0, 1)).flatMap(({ name, path, needed }) =>
    linkedText(name, path, needed),
  )
}
