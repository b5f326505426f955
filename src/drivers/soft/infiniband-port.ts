/*
 * An InfiniBand port of a soft device, as a subnet sees it (spec/subnet-port.ts): what a subnet sets becomes the port's
 * attributes, GIDs, partition keys and events, and the port sends and receives by its LID while it is ACTIVE. Without a
 * subnet the port stays INIT, with LID 0, as one whose subnet manager has not come (IBA 10.5, 14.2.5).
 */
import { setGid } from '../../core/devices/gids.ts'
import { type DeviceLink, type FabricOptions, NO_EVENT, type PortEvent } from '../../core/driver-contract.ts'
import { raisePort } from '../../core/events/events.ts'
import type { Device } from '../../core/model.ts'
import { MAX_PKEYS } from '../../settings/fabric.ts'
import { createCause } from '../../spec/check/causes.ts'
import {
  AsyncEventType,
  GidType,
  LinkLayer,
  LinkSpeed,
  LinkWidth,
  Mtu,
  nameIn,
  PhysState,
  PortCapFlags,
  PortState,
} from '../../spec/enums.ts'
import { adapterLink } from '../../spec/link-rate.ts'
import type { ManagementPath, PortSubnet, SubnetPort, SubnetSettings } from '../../spec/subnet-port.ts'
import type { PortFabric } from '../../transport/phy/port.ts'
import type { SoftState } from './state.ts'

const { PORT_ACTIVE, PORT_ERR, LID_CHANGE, PKEY_CHANGE, SM_CHANGE, CLIENT_REREGISTER, GID_CHANGE } =
  AsyncEventType.values
const { DOWN, INIT, ACTIVE } = PortState.values
const { POLLING, LINK_UP } = PhysState.values
const { TRAP_SUP, SL_MAP_SUP, SYS_IMAGE_GUID_SUP, EXTENDED_SPEEDS_SUP, CM_SUP, CAP_MASK_NOTICE_SUP, CLIENT_REG_SUP } =
  PortCapFlags.values

/** That of mlx5. */
const GUIDS = 8
/** Link-local prefix of GIDs until a manager sets another. */
const DEFAULT_PREFIX = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0)
const NO_GUID = new Uint8Array(8)

/** VLs 0 to 3 (PortInfo.VLCap). */
const VL_CAP = 3

/** Attributes of the port that differ from those of RoCE: 100 Gb/s, four lanes of EDR, not yet configured. */
export const fabricAttributes = {
  portCapFlags:
    TRAP_SUP | SL_MAP_SUP | SYS_IMAGE_GUID_SUP | EXTENDED_SPEEDS_SUP | CM_SUP | CAP_MASK_NOTICE_SUP | CLIENT_REG_SUP,
  gidTblLen: GUIDS,
  pkeyTblLen: MAX_PKEYS,
  state: INIT,
  physState: LINK_UP,
  activeMtu: Mtu.values.MTU_4096,
  maxVlNum: VL_CAP,
  ...adapterLink(),
  linkLayer: LinkLayer.values.INFINIBAND,
  flags: 0,
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => a.every((byte, i) => byte === b[i])

/** `name`: what has that LID; 0: there is none. */
const lidText = (name: string, now: number, before: number): string =>
  `${name} is ${now === 0 ? 'none' : now}; it was ${before === 0 ? 'none' : before}`

const keysText = (keys: Uint16Array): string =>
  [...keys]
    .filter(key => key !== 0)
    .map(key => `0x${key.toString(16).padStart(4, '0')}`)
    .join(', ') || 'none'

export class InfinibandPort implements SubnetPort, PortFabric {
  readonly identity: SubnetPort['identity']
  readonly link: DeviceLink
  readonly #device: Device<SoftState>
  #subnet: PortSubnet | undefined
  #prefix = DEFAULT_PREFIX
  #guids: readonly Uint8Array[]
  #isManager = false
  #isCut = false
  /** Called after each change of what programs see; set by the owner of the device. */
  changed: () => void = () => {}

  constructor(device: Device<SoftState>, { guid, pkeys }: FabricOptions) {
    this.#device = device
    const { attributes, ports } = device
    const portGuid = guid ?? device.state.identity.guid
    this.#guids = [portGuid, ...new Array<Uint8Array>(GUIDS - 1).fill(NO_GUID)]
    this.identity = {
      systemGuid: attributes.sysImageGuid,
      nodeGuid: attributes.nodeGuid,
      portGuid,
      number: 1,
      ports: 1,
      vendorId: attributes.vendorId,
      deviceId: attributes.vendorPartId,
      revision: attributes.hwVer,
      pkeyTableLength: MAX_PKEYS,
      guidTableLength: GUIDS,
      maxMtu: ports[0]!.attributes.maxMtu,
      supportedWidth: LinkWidth.values.X1 | LinkWidth.values.X4,
      supportedSpeed: LinkSpeed.values.EDR,
      vlCap: VL_CAP,
    }
    if (pkeys !== undefined) {
      ports[0]!.pkeys.fill(0)
      ports[0]!.pkeys.set(pkeys)
    }
    ports[0]!.ipAddresses = device.state.identity.gids.slice(1)
    this.#setGids()
    this.link = this.#deviceLink()
  }

  get #attributes() {
    return this.#device.ports[0]!.attributes
  }

  /** The LID by which the port sends and receives; 0: it is not ACTIVE. */
  get lid(): number {
    const { state, lid } = this.#attributes
    return state === ACTIVE ? lid : 0
  }

  /** 0: no subnet manager has come. */
  get smLid(): number {
    return this.#attributes.smLid
  }

  reached(dlid: number): readonly object[] {
    return this.#subnet?.reached(dlid) ?? []
  }

  lost(dlid: number, packets: number): void {
    this.#subnet?.lost(dlid, packets)
  }

  get description(): string {
    return this.#device.name
  }

  get addresses(): readonly Uint8Array[] {
    return this.#device.ports[0]!.ipAddresses ?? []
  }

  get capabilityMask(): number {
    return this.#attributes.portCapFlags
  }

  get settings(): SubnetSettings {
    const { pkeys, attributes } = this.#device.ports[0]!
    const { state, physState, lid, lmc, smLid, smSl, activeMtu, activeWidth, activeSpeed } = attributes
    const { subnetTimeout, initTypeReply } = attributes
    return {
      ...{ state, physState, lid, lmc, smLid, smSl, activeMtu, activeWidth, activeSpeed, subnetTimeout, initTypeReply },
      gidPrefix: this.#prefix,
      guids: this.#guids,
      pkeys: pkeys.slice(),
    }
  }

  attach(subnet: PortSubnet | undefined): void {
    this.#subnet = subnet
    if (subnet === undefined) this.set({ state: INIT, lid: 0, smLid: 0 })
  }

  /** The subnet to which the port is cabled. */
  get subnet(): PortSubnet | undefined {
    return this.#subnet
  }

  set(change: Partial<SubnetSettings>): void {
    const { guids, pkeys, gidPrefix, ...fields } = change
    const attributes = this.#attributes
    const { state, lid, smLid } = attributes
    const keys = keysText(this.#device.ports[0]!.pkeys)
    Object.assign(attributes, fields, fields.activeSpeed !== undefined && { activeSpeedEx: fields.activeSpeed })
    if (this.#isCut) Object.assign(attributes, { state: DOWN, physState: POLLING })
    const events: (readonly [event: PortEvent, change: string])[] = []
    if (gidPrefix !== undefined) this.#prefix = gidPrefix.slice()
    if (guids !== undefined) this.#guids = [this.identity.portGuid, ...guids.slice(1, GUIDS)]
    if ((gidPrefix !== undefined || guids !== undefined) && this.#setGids())
      events.push([GID_CHANGE, 'the subnet manager has set its prefix or GUIDs'])
    if (pkeys !== undefined && this.#setPkeys(pkeys))
      events.push([PKEY_CHANGE, `its P_Keys are ${keysText(pkeys)}; they were ${keys}`])
    if (attributes.lid !== lid) events.push([LID_CHANGE, lidText('its LID', attributes.lid, lid)])
    if (attributes.smLid !== smLid)
      events.push([SM_CHANGE, lidText('the LID of its subnet manager', attributes.smLid, smLid)])
    if (attributes.state !== state && attributes.state === ACTIVE)
      events.push([PORT_ACTIVE, `the subnet manager has made it ACTIVE, with LID ${attributes.lid}`])
    if (attributes.state !== state && state === ACTIVE) {
      const reason = this.#isCut ? 'its cable is pulled: ' : ''
      events.push([PORT_ERR, `${reason}it was ACTIVE, and is ${nameIn(PortState.values, attributes.state)}`])
      if (attributes.state === DOWN) this.#device.state.linkDowned++
    }
    this.rerouted()
    this.changed()
    for (const [event, change] of events) this.#raise(event, change)
  }

  #raise(event: PortEvent, change: string): void {
    raisePort(this.#device as Device, 1, event, createCause('SUBNET_EVENT', { port: 1, change }))
  }

  rerouted(): void {
    this.#device.state.port.setFabric?.(this)
  }

  reregister(): void {
    this.#raise(CLIENT_REREGISTER, 'the subnet manager asks to join groups and to register services again')
  }

  deliver(mad: Uint8Array, path: ManagementPath): void {
    this.#device.state.coreQueues.byNumber.get(path.destQpn)?.onManagement?.(mad, path)
  }

  /** A subnet manager has opened the port, or has left it (the issm node). Returns false if it is so already. */
  setManager(isManager: boolean): boolean {
    if (isManager === this.#isManager) return false
    this.#isManager = isManager
    this.#attributes.portCapFlags ^= PortCapFlags.values.SM
    this.changed()
    this.#subnet?.news({ kind: 'capabilities' })
    return true
  }

  removed(): void {
    this.#subnet?.removed()
  }

  /** True if a GID has changed. */
  #setGids(): boolean {
    const { gids } = this.#device.ports[0]!
    let isOther = false
    this.#guids.forEach((guid, i) => {
      const before = gids.entries[i]?.gid
      const isEmpty = isSame(guid, NO_GUID)
      const gid = Uint8Array.of(...this.#prefix, ...guid)
      if (isEmpty ? before === undefined : before !== undefined && isSame(gid, before)) return
      setGid(gids, i, isEmpty ? undefined : { gid, type: GidType.values.IB, ifindex: 0 })
      isOther = true
    })
    return isOther
  }

  #setPkeys(pkeys: Uint16Array): boolean {
    const table = this.#device.ports[0]!.pkeys
    if (table.every((key, i) => key === (pkeys[i] ?? 0))) return false
    table.fill(0)
    table.set(pkeys.subarray(0, table.length))
    return true
  }

  /** The cable, and the addresses of the interface, which rdma_cm knows. */
  #deviceLink(): DeviceLink {
    const { state, ports } = this.#device
    const port = ports[0]!
    const removeAddress = (address: Uint8Array): undefined => {
      port.ipAddresses = port.ipAddresses?.filter(own => !isSame(own, address))
    }
    const setCarrier = (hasCarrier: boolean): PortEvent | undefined => {
      if (hasCarrier === !this.#isCut) return undefined
      this.#isCut = !hasCarrier
      this.set(hasCarrier ? { state: INIT, physState: LINK_UP } : {})
      this.#subnet?.news({ kind: 'link', hasCarrier })
      return NO_EVENT
    }
    return {
      get identity() {
        return state.identity
      },
      pathMtu: state.port.pathMtu,
      setState: () => undefined,
      setCarrier,
      addAddress: address => {
        removeAddress(address)
        port.ipAddresses?.push(address.slice())
        return undefined
      },
      removeAddress,
      setMac: () => [],
      moveTo: () => {},
    }
  }
}
