/*
 * The RDMA_NLDEV commands that add, delete and change devices (Linux: nldev_newlink, nldev_dellink, nldev_set).
 */
import { existsSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import type { Device } from '../../core/model.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { deviceNameError, specOf } from '../devices/device-spec.ts'
import { type Answers, deviceOf, type Managed, type ParsedRequest, required, type Work } from './answers.ts'

/** Devices with adaptive interrupt moderation (DEV_DIM) on. As with Linux's rxe, it has no effect. */
const moderated = new WeakSet<Device>()
export const isModerated = (device: Device): boolean => moderated.has(device)

const setDevice = (daemon: Managed, parsed: ParsedRequest): Work<undefined> | undefined => {
  const { DEV_NAME: name, NET_NS_FD: namespaceFd, DEV_DIM: moderation } = parsed.attributes
  const found = deviceOf(daemon, parsed)
  const { device } = found
  if (namespaceFd !== undefined) {
    const namespace = parsed.namespaceOfFd(namespaceFd)
    if (namespace === undefined)
      throw callError.EINVAL`attribute NET_NS_FD: descriptor ${namespaceFd} is no network namespace`
    // As since Linux 7.3, a name renames the device too, before it moves.
    if (name !== undefined) daemon.devices.rename(found, name)
    return daemon.namespaces.move(found, namespace)
  }
  if (name !== undefined) daemon.devices.rename(found, name)
  else if (moderation !== undefined && moderation > 1)
    throw callError.EINVAL`attribute DEV_DIM: ${moderation} is not 0 or 1`
  else if (moderation === 1) moderated.add(device)
  else if (moderation === 0) moderated.delete(device)
  return undefined
}

/** The address for a new device on this interface: the first IPv4 address, otherwise the first IPv6 address. */
const addressOf = (name: string): string => {
  const addresses = new Map(Object.entries(networkInterfaces())).get(name)
  if (addresses === undefined && (name.includes('/') || !existsSync(`/sys/class/net/${name}/ifindex`)))
    throw callError.ENODEV`there is no interface ${name} in the daemon's network namespace`
  const first = addresses?.find(({ family }) => family === 'IPv4') ?? addresses?.[0]
  if (first === undefined)
    throw callError.EADDRNOTAVAIL`interface ${name} is down or has no address; a device needs one`
  return first.address
}

function* addLink(daemon: Managed, { attributes, namespace }: ParsedRequest): Work<undefined> {
  yield* daemon.devices.removing()
  if (daemon.namespaces.isForeign(namespace))
    throw callError.EOPNOTSUPP`devices are added in the daemon's network namespace, and moved by \`rdma dev set\``
  const name = required(attributes, 'DEV_NAME')
  const type = required(attributes, 'LINK_TYPE')
  const interfaceName = required(attributes, 'NDEV_NAME')
  const nameError = deviceNameError(name)
  if (nameError !== undefined) throw new CallError('EINVAL', nameError)
  const address = addressOf(interfaceName)
  const types = daemon.devices.drivers.filter(driver => driver.hasAddress).map(driver => driver.name)
  if (!types.includes(type))
    throw callError.EINVAL`device type ${JSON.stringify(type)} does not exist; use ${types.join(' or ')}`
  const existing = daemon.devices.linked.find(({ link }) => link.identity.interfaceName === interfaceName)
  if (existing !== undefined)
    throw callError.EEXIST`interface ${interfaceName} has a device already, ${existing.device.name}`
  // ENFILE is Linux's errno for a name in use.
  if (daemon.devices.find(name)) throw callError.ENFILE`there is a device ${name} already`
  try {
    daemon.devices.add(specOf(name, address, type, daemon.devices.drivers))
  } catch (error) {
    throw new CallError('EINVAL', error instanceof Error ? error.message : String(error))
  }
}

const removeLink = (daemon: Managed, parsed: ParsedRequest): undefined => {
  const { device, network } = deviceOf(daemon, parsed)
  if (network?.link === undefined) throw callError.EINVAL`device ${device.name} is not a soft device`
  daemon.devices.remove(device.name)
}

const addSubDevice = (daemon: Managed, parsed: ParsedRequest): never => {
  required(parsed.attributes, 'DEV_NAME')
  required(parsed.attributes, 'DEV_TYPE')
  return noSubDevices(daemon, parsed)
}

const noSubDevices = (daemon: Managed, parsed: ParsedRequest): never => {
  const { device } = deviceOf(daemon, parsed)
  throw callError.EOPNOTSUPP`device ${device.name} has no sub-devices`
}

export const changeAnswers: Answers = {
  SET: { one: setDevice },
  NEWLINK: { one: addLink },
  DELLINK: { one: removeLink },
  NEWDEV: { one: addSubDevice },
  DELDEV: { one: noSubDevices },
}
