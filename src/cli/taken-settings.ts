/*
 * What a daemon of a command's own takes over from the daemon that the environment names, so that programs find the
 * same devices: on a host of a net from the host's daemon; for `check` and walks also in a shell with `eval "$(userdma
 * env)"`, in a CI job, or in a program of `userdma run`, from the daemon of USERDMA_SOCKET. With `--device` nothing is
 * taken.
 *
 * Outside of memory only one daemon can have an address, whose UDP port it binds. Such devices are borrowed
 * (daemon/devices/lent-devices.ts).
 */
import { RefusalError } from '../daemon/client/errors.ts'
import { openToolSession, type ToolSession } from '../daemon/client/tool-session.ts'
import { namedSocket } from '../daemon/client/user-socket.ts'
import { deviceText, withoutOwnFunction } from '../daemon/devices/device-spec.ts'
import { OTHER_SWITCHES } from '../settings/fabric.ts'
import type { DeviceSpec, Link } from '../uapi/tool.ts'
import {
  type ConfigOptions,
  knowDrivers,
  type OutputOptions,
  settingsText,
  tellDrivers,
  wantedConfig,
} from './config.ts'
import { hostOfNet } from './net/on-host.ts'

type OwnDaemonOptions = ConfigOptions & OutputOptions

export interface Taken<T> {
  /** The options, with what was taken as if it had been given. */
  readonly options: T
  /** Call when the own daemon has ended: borrowed devices are the other daemon's again. */
  release(): void
}

/** The commands that take settings of any daemon, with how it is joined. */
const joins = {
  check: (socket: string, checks = false) =>
    `\`--socket ${socket}\` ${checks ? 'joins that one' : 'would join that one, if it ran with --check'}`,
  walk: (socket: string) => `\`userdma run --socket ${socket}\` joins that one`,
} as const
export type TakingCommand = keyof typeof joins

/** A daemon from which settings are taken. */
interface Source {
  readonly socket: string
  /** Its name in messages. */
  readonly name: string
  /** What to do if its devices cannot be borrowed. */
  readonly advice: string
}

const borrowFrom = (owner: ToolSession, { name, advice }: Source): Promise<readonly DeviceSpec[]> =>
  owner.borrowDevices().catch(error => {
    const reason = error instanceof RefusalError ? error.reason : error.message
    throw new Error(`the command needs the devices of ${name} for a daemon of its own, and ${reason}; ${advice}`, {
      cause: error,
    })
  })

const takeFrom = async <T extends OwnDaemonOptions>(source: Source, options: T) => {
  const owner = await openToolSession(source.socket)
  try {
    const config = await owner.config()
    const { fault, path, ignoreMemlock, allowFaults, drivers, fabric, machine } = config
    const link = (options.link as Link | undefined) ?? config.link
    // Other switches have the ports of InfiniBand devices only once.
    const isCabled = fabric?.startsWith(OTHER_SWITCHES) === true
    const isBound = isCabled || (link !== 'memory' && config.link !== 'memory')
    const devices = (isBound ? await borrowFrom(owner, source) : config.devices).map(withoutOwnFunction)
    if (!isBound) owner.close()
    if (devices.length === 0)
      throw new Error(`${source.name} has no devices for a daemon of the command's own; add one, or give --device`)
    knowDrivers(devices)
    const faults = [fault, ...(options.fault ?? [])].filter(Boolean)
    const taken: ConfigOptions = {
      device: devices.map(deviceText),
      link,
      ...(faults.length > 0 && { fault: faults }),
      ...(isCabled && { fabric }),
      ...(machine !== undefined && { machine }),
      ...(path !== undefined && options.path === undefined && { path }),
      ...(ignoreMemlock && { ignoreMemlock }),
      ...(allowFaults && { allowFaults }),
      ...(drivers && { driver: drivers }),
    }
    return {
      options: { ...options, ...taken },
      text: settingsText({ devices, fault, link, ...(machine !== undefined && { machine }) }),
      checks: config.check === true,
      release: () => owner.close(),
    }
  } catch (error) {
    owner.close()
    throw error
  }
}

/**
 * The options with those settings. `command`: it takes settings of any daemon, not only on hosts of nets, and says so
 * in a line on standard error. Throws UsageError, or an Error if the other daemon cannot be reached or its devices are
 * in use.
 */
export const takeSettings = async <T extends OwnDaemonOptions>(
  options: T,
  command?: TakingCommand,
): Promise<Taken<T>> => {
  // A wrong option comes before other errors.
  const wanted = await wantedConfig(options)
  await tellDrivers(wanted.devices, options)
  if (options.device !== undefined) return { options, release() {} }
  const host = await hostOfNet()
  // Who wants the memory link does not want the devices of a host.
  if (host !== undefined && options.link !== 'memory')
    return takeFrom(
      {
        socket: host.socket,
        name: `host ${host.name}`,
        advice: `end that first, or put \`check: true\` into ${host.file}, so that the host's own daemon checks programs`,
      },
      options,
    )
  const socket = host === undefined && command !== undefined ? namedSocket(undefined) : undefined
  if (socket === undefined || command === undefined) return { options, release() {} }
  const name = `the daemon at ${socket}`
  const { text, checks, ...taken } = await takeFrom(
    { socket, name, advice: 'give --link memory, which needs no addresses' },
    options,
  )
  // Where standard error has JSON objects, it has nothing else.
  if (!options.json || options.output !== undefined)
    process.stderr.write(
      `userdma ${command}: starts a daemon of its own with the devices, link and faults of ${name} (${text}); ${joins[command](socket, checks)}\n`,
    )
  return taken
}
