/*
 * The devices of a machine file: each adapter is one, at its function, with the driver of its vendor. A device of
 * `--device` with the name of an adapter has its address and its other settings; one with another name is one more.
 */
import { deviceText } from '../../daemon/devices/device-spec.ts'
import { type AdapterName, pciModelNames } from '../../spec/check/adapters.ts'
import { functionsOf, type Machine, type MachineFunction } from '../../tools/topology/machine-file.ts'
import type { DeviceSpec } from '../../uapi/tool.ts'

/** The drivers of adapters, by the vendors of their functions; those of others are rxe's. */
const DRIVERS: Readonly<Record<number, AdapterName>> = { 5555: 'mlx5', 7439: 'efa' }
const DEFAULT_DRIVER = 'rxe'
const MAX_ADAPTERS = 254

/** The addresses of loopback that no given device has. */
const freeAddresses = (given: readonly DeviceSpec[]): Generator<string> =>
  (function* () {
    const taken = new Set(given.map(({ address }) => address))
    for (let host = 1; host <= MAX_ADAPTERS; host++) if (!taken.has(`127.0.0.${host}`)) yield `127.0.0.${host}`
  })()

const deviceOf = (
  { address, ids, node, rdma }: MachineFunction,
  name: string,
  given: DeviceSpec | undefined,
  freeAddress: () => string,
): DeviceSpec => {
  const driver = DRIVERS[ids[0]]
  const pci = { address, node, model: driver ?? pciModelNames[0]! }
  if (given?.pci !== undefined && given.pci.address !== address)
    throw new Error(
      `device "${deviceText(given)}": pci=${given.pci.address} is another function than ${address}, where the machine has ${name}; leave pci= out`,
    )
  return {
    ...(rdma?.isInfiniBand && { layer: 'infiniband' as const }),
    ...given,
    name,
    address: given?.address || freeAddress(),
    driver: given?.driver ?? driver ?? DEFAULT_DRIVER,
    pci,
  }
}

/** All devices; undefined: those without a machine, which has no adapter. Throws an Error. */
export const machineDevices = (
  machine: Machine,
  given: readonly DeviceSpec[] = [],
): readonly DeviceSpec[] | undefined => {
  const addresses = freeAddresses(given)
  const freeAddress = (): string => {
    const { value, done } = addresses.next()
    if (done)
      throw new Error(`the machine has more than ${MAX_ADAPTERS} adapters: give some of them an address by --device`)
    return value
  }
  const adapters = functionsOf(machine).flatMap(found =>
    found.rdma === undefined
      ? []
      : [
          deviceOf(
            found,
            found.rdma.name,
            given.find(({ name }) => name === found.rdma?.name),
            freeAddress,
          ),
        ],
  )
  const others = given.filter(({ name }) => adapters.every(adapter => adapter.name !== name))
  const all = [...adapters, ...others]
  return all.length === 0 ? undefined : all
}
