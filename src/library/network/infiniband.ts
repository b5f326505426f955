/*
 * InfiniBand ports of devices in this process: their options, and the path that a subnet manager gives them.
 */
import type { FabricOptions } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import { guidBytes, isPartitionKey, MAX_PKEYS, parseFabric, readGuid } from '../../settings/fabric.ts'
import { mtuBytes } from '../../spec/mtu.ts'
import { checkText, formatValue, invalidArgument } from '../verbs/error.ts'
import { type LocalPath, NO_PATH } from '../verbs/plan.ts'
import type { DevicePlace } from './contract.ts'

/** Checks option `fabric` of a network. Throws RdmaError EINVAL. */
export const checkFabric = (fabric: unknown): void => {
  checkText('createNetwork', 'fabric', fabric)
  try {
    parseFabric(fabric as string)
  } catch (error) {
    throw invalidArgument('createNetwork', `fabric ${formatValue(fabric)}: ${(error as Error).message}`)
  }
}

const readPkeys = (pkeys: readonly number[]): readonly number[] => {
  if (!Array.isArray(pkeys) || pkeys.length === 0 || pkeys.length > MAX_PKEYS || !pkeys.every(isPartitionKey))
    throw invalidArgument(
      'open',
      `pkeys ${formatValue(pkeys)} are not 1 to ${MAX_PKEYS} partition keys`,
      'a key is from 1 to 0xffff; 0x8000 is none',
    )
  return [...pkeys]
}

const readGuidBytes = (guid: string): Uint8Array => {
  try {
    return guidBytes(readGuid(guid))
  } catch (error) {
    throw invalidArgument('open', (error as Error).message)
  }
}

/** The name of the first option that is not absent. */
const firstGiven = (options: Readonly<Record<string, unknown>>): string | undefined =>
  Object.keys(options).find(name => options[name] !== undefined)

/**
 * What the options say of an InfiniBand port; undefined for one of RoCE. `refusal`: why the network has no such ports.
 * Throws RdmaError EINVAL.
 */
export const fabricOptions = (
  { layer, guid, pkeys, dcqcn, host }: DevicePlace,
  refusal: string | undefined,
): FabricOptions | undefined => {
  if (layer !== 'infiniband') {
    const option = firstGiven({ guid, pkeys })
    if (option === undefined) return undefined
    throw invalidArgument('open', `${option} is of an InfiniBand port`, "give layer: 'infiniband' too")
  }
  if (refusal !== undefined) throw invalidArgument('open', `layer 'infiniband': ${refusal}`)
  const option = firstGiven({ dcqcn, host })
  if (option !== undefined) throw invalidArgument('open', `${option} is of a port of RoCE`, 'leave it out')
  return {
    guid: guid === undefined ? undefined : readGuidBytes(guid),
    pkeys: pkeys === undefined ? undefined : readPkeys(pkeys),
  }
}

/** The path of a device with an InfiniBand port, as its subnet manager has it now. */
export const infinibandPath = (device: Device): LocalPath => {
  const { attributes, gids } = device.ports[0]!
  return {
    link: 'ib',
    gidIndex: 0,
    get gid() {
      return gids.entries[0]?.gid ?? NO_PATH.gid
    },
    get lid() {
      return attributes.lid
    },
    get pathMtu() {
      return mtuBytes(attributes.activeMtu)
    },
  }
}
