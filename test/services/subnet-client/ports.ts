/*
 * Ports without devices, on the subnet of their process, in virtual time.
 */
import { EmbeddedSubnet } from '../../../src/services/subnet-client/embedded-subnet.ts'
import { LinkSpeed, LinkWidth, PhysState, PortCapFlags, PortState } from '../../../src/spec/enums.ts'
import type { ManagementPath, PortSubnet, SubnetPort, SubnetSettings } from '../../../src/spec/subnet-port.ts'

export const SECOND = 1_000_000
const { INIT } = PortState.values

export interface Delivered {
  readonly mad: Uint8Array
  readonly path: ManagementPath
}

/** A port without a device. */
export class TestPort implements SubnetPort {
  readonly identity: SubnetPort['identity']
  readonly description: string
  capabilityMask: number = PortCapFlags.values.TRAP_SUP
  settings: SubnetSettings
  subnet: PortSubnet | undefined
  readonly addresses: readonly Uint8Array[] = []
  registrations = 0
  reroutes = 0
  changed: () => void = () => {}
  readonly delivered: Delivered[] = []

  constructor(number: number, pkeys: readonly number[] = [0xffff]) {
    const guid = (last: number) => Uint8Array.of(4, 0, 0, 0, 0, number >> 8, number & 0xff, last)
    this.identity = {
      systemGuid: guid(0),
      nodeGuid: guid(0),
      portGuid: guid(1),
      number: 1,
      ports: 1,
      vendorId: 0x2c9,
      deviceId: 4119,
      revision: 0,
      pkeyTableLength: 128,
      guidTableLength: 8,
      maxMtu: 5,
      supportedWidth: LinkWidth.values.X4,
      supportedSpeed: LinkSpeed.values.EDR,
      vlCap: 1,
    }
    this.description = `mlx5_${number}`
    const noGuid = new Uint8Array(8)
    this.settings = {
      state: INIT,
      physState: PhysState.values.LINK_UP,
      lid: 0,
      lmc: 0,
      smLid: 0,
      smSl: 0,
      gidPrefix: noGuid,
      activeMtu: 5,
      activeWidth: LinkWidth.values.X4,
      activeSpeed: LinkSpeed.values.EDR,
      subnetTimeout: 0,
      initTypeReply: 0,
      guids: [guid(1), ...Array<Uint8Array>(7).fill(noGuid)],
      pkeys: Uint16Array.from([...pkeys, ...Array<number>(128 - pkeys.length).fill(0)]),
    }
  }
  attach(subnet: PortSubnet | undefined): void {
    this.subnet = subnet
  }
  set(change: Partial<SubnetSettings>): void {
    this.settings = { ...this.settings, ...change }
  }
  rerouted(): void {
    this.reroutes++
  }
  reregister(): void {
    this.registrations++
  }
  deliver(mad: Uint8Array, path: ManagementPath): void {
    this.delivered.push({ mad, path })
  }
}

export const subnetOf = (ports: readonly TestPort[], fabric?: string) => {
  let now = 0
  let random = 1
  const subnet = new EmbeddedSubnet({ now: () => now, random: () => random++, ...(fabric !== undefined && { fabric }) })
  for (const port of ports) subnet.attach(port)
  const run = (time: number): void => {
    const end = now + time
    for (let next = subnet.nextTimeout(); next <= end; next = subnet.nextTimeout()) {
      now = Math.max(now, next)
      subnet.onTimeout(now)
    }
    now = end
  }
  return { subnet, run }
}

export const ports = (count: number) => Array.from({ length: count }, (_, i) => new TestPort(i + 1))
