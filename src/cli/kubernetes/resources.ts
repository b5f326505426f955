/*
 * Resources that kubelet offers to pods, from `--resource NAME[,shares=N][,driver=NAME][,device=NAME]`, and their
 * shares. A device can be used by many programs, so kubelet gets `shares` identical devices for it, with the ids
 * rxe0-0, rxe0-1, …: as many containers may have it at once.
 *
 * The rules for names are kubelet's for extended resources (kubernetes.io/docs/concepts/configuration/
 * manage-resources-containers).
 */

import { createHash } from 'node:crypto'
import { DEFAULT_DRIVER } from '../../spec/drivers/known.ts'
import type { DeviceSpec } from '../../uapi/tool.ts'
import { KIND } from '../container-edits.ts'
import { UsageError } from '../fail.ts'
import type { ContainerPreference } from './device-plugin.ts'

export interface Resource {
  readonly name: string
  /** For each device. */
  readonly shares: number
  /** Only devices of this driver; undefined: of all. */
  readonly driver: string | undefined
  /** Only devices with these names; empty: all. */
  readonly devices: readonly string[]
}

const DEFAULT_SHARES = 100
const MAX_SHARES = 10_000
/** Shares of a resource: more would not fit into a message of 4 MiB, which kubelet accepts. */
const MAX_LISTED = 40_000

const PREFIX = /^(?=.{1,253}$)[a-z\d]([a-z\d-]{0,61}[a-z\d])?(\.[a-z\d]([a-z\d-]{0,61}[a-z\d])?)*$/
const NAME = /^[A-Za-z\d]([\w.-]{0,61}[A-Za-z\d])?$/

/** Throws UsageError. */
const requireName = (name: string): void => {
  const [prefix = '', last = '', ...more] = name.split('/')
  const reason =
    more.length > 0 || !PREFIX.test(prefix) || !NAME.test(last)
      ? 'is no name of a resource, which is DOMAIN/NAME, for example rdma/hca: a domain in small letters, and at most 63 letters, digits, "-", "_" and "."'
      : prefix === 'kubernetes.io' || prefix.endsWith('.kubernetes.io')
        ? 'has the domain kubernetes.io, which kubelet refuses'
        : name.startsWith('requests.')
          ? 'begins with "requests.", which kubelet refuses'
          : undefined
  if (reason !== undefined) throw new UsageError(`--resource "${name}" ${reason}`)
}

/** Throws UsageError. */
const parseShares = (resource: string, text: string): number => {
  const shares = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (shares < 1 || shares > MAX_SHARES)
    throw new UsageError(`--resource "${resource}": shares="${text}" is not an integer from 1 to ${MAX_SHARES}`)
  return shares
}

/** Throws UsageError. */
const parseResource = (text: string): Resource => {
  const [name = '', ...settings] = text.split(',')
  requireName(name)
  const found: { shares?: string; driver?: string } = {}
  const devices: string[] = []
  for (const setting of settings) {
    const [, key, value = ''] = /^(shares|driver|device)=(.+)$/s.exec(setting) ?? []
    if (key === undefined)
      throw new UsageError(
        `--resource "${text}": "${setting}" is no setting of a resource; after its name may follow shares=, driver= and device=`,
      )
    if (key === 'device') devices.push(value)
    else if (found[key as 'shares' | 'driver'] !== undefined)
      throw new UsageError(`--resource "${text}": ${key}= is given twice`)
    else found[key as 'shares' | 'driver'] = value
  }
  const shares = found.shares === undefined ? DEFAULT_SHARES : parseShares(text, found.shares)
  return { name, shares, driver: found.driver, devices }
}

/** The resources of the options, by default one of all devices. Throws UsageError. */
export const parseResources = (texts: readonly string[] = [KIND]): readonly Resource[] => {
  const resources = texts.map(parseResource)
  const names = resources.map(({ name }) => name)
  const twice = names.find((name, i) => names.indexOf(name) < i)
  if (twice !== undefined) throw new UsageError(`--resource "${twice}" is given twice`)
  return resources
}

/** The name of a plugin's socket: that of the resource or, if it would be too long for a socket, its hash. */
export const socketName = ({ name }: Resource): string => {
  const text = name.replace('/', '_')
  return `userdma_${text.length <= 48 ? text : createHash('sha256').update(name).digest('hex').slice(0, 32)}.sock`
}

/** Whether a device is part of a resource. */
export const isOf = ({ driver, devices }: Resource, device: DeviceSpec): boolean =>
  (driver === undefined || driver === (device.driver ?? DEFAULT_DRIVER)) &&
  (devices.length === 0 || devices.includes(device.name))

/** Devices by the ids of their shares, in kubelet's order. */
export const sharesOf = (resource: Resource, devices: readonly string[]): ReadonlyMap<string, string> => {
  const ids = devices.flatMap(device =>
    Array.from({ length: resource.shares }, (_, i) => [`${device}-${i}`, device] as const),
  )
  return new Map(ids.slice(0, MAX_LISTED))
}

/**
 * The ids that kubelet should choose: those that it must, then each time one of the device with the most free shares,
 * so that containers spread over devices, and a container that wants several gets several devices.
 */
export const preferred = (
  { available_deviceIDs, must_include_deviceIDs, allocation_size }: ContainerPreference,
  shares: ReadonlyMap<string, string>,
): readonly string[] => {
  const chosen = new Set(must_include_deviceIDs)
  const free = new Map<string, string[]>()
  for (const id of available_deviceIDs) {
    const device = shares.get(id)
    if (device === undefined || chosen.has(id)) continue
    const ids = free.get(device) ?? []
    ids.push(id)
    free.set(device, ids)
  }
  // the first in kubelet's order is taken first
  for (const ids of free.values()) ids.reverse()
  while (chosen.size < allocation_size) {
    const [most] = [...free.values()].sort((a, b) => b.length - a.length)
    const id = most?.pop()
    if (id === undefined) break
    chosen.add(id)
  }
  return [...chosen]
}
