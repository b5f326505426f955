/*
 * The seam between an InfiniBand port of a device and the subnet to which it is cabled (IBA 14): what an agent reads
 * and sets at the port, and how management datagrams cross it. A driver provides the port (`NetworkDevice.subnetPort`);
 * a subnet, with agents and perhaps a manager, takes it with `attach`. Neither calls the other from within a call of
 * the other: who gets a datagram keeps it for its next turn.
 */

/** What never changes: fields of NodeInfo and limits of PortInfo. GUIDs have 8 bytes. */
interface PortIdentity {
  readonly systemGuid: Uint8Array
  readonly nodeGuid: Uint8Array
  /** GUID 0 of the port. */
  readonly portGuid: Uint8Array
  /** Number of the port at its adapter, and number of ports. */
  readonly number: number
  readonly ports: number
  readonly vendorId: number
  readonly deviceId: number
  readonly revision: number
  readonly pkeyTableLength: number
  readonly guidTableLength: number
  /** `Mtu`, and the enums of PortInfo. */
  readonly maxMtu: number
  readonly supportedWidth: number
  readonly supportedSpeed: number
  readonly vlCap: number
}

/** What an agent sets by PortInfo, P_KeyTable and GUIDInfo, and programs see. */
export interface SubnetSettings {
  /** `PortState` */
  readonly state: number
  /** `PhysState` */
  readonly physState: number
  /** 0: none yet. */
  readonly lid: number
  readonly lmc: number
  readonly smLid: number
  readonly smSl: number
  /** 8 bytes. */
  readonly gidPrefix: Uint8Array
  /** `Mtu`, `LinkWidth`, `LinkSpeed` */
  readonly activeMtu: number
  readonly activeWidth: number
  readonly activeSpeed: number
  readonly subnetTimeout: number
  readonly initTypeReply: number
  /** The whole table of GUIDs, from the port's own on; 8 bytes each, zeros for an empty entry. */
  readonly guids: readonly Uint8Array[]
  /** The whole table of partition keys; 0: empty. */
  readonly pkeys: Uint16Array
}

/** The header fields of a management datagram. */
export interface ManagementPath {
  /** 0xffff: permissive. */
  readonly slid: number
  readonly dlid: number
  readonly sl: number
  /** 0: subnet management, on VL 15. 1: general services. The peer may have another one. */
  readonly sourceQpn: number
  readonly destQpn: number
  readonly qkey: number
  readonly pkey: number
  /** Present if the datagram has a GRH; 16 bytes each. */
  readonly grh?: { readonly source: Uint8Array; readonly destination: Uint8Array; readonly hopLimit: number }
}

/** What has happened at the port; an agent may send a trap about it. */
export type PortNews =
  /** `capabilityMask` has changed: a manager has opened the port, or has left it. */
  | { readonly kind: 'capabilities' }
  /** The adapter's cable was pulled or plugged, or its name has changed. */
  | { readonly kind: 'link'; readonly hasCarrier: boolean }
  | { readonly kind: 'description' }
  /** A packet with a partition key (or Q_Key) that its receiver lacks. */
  | {
      readonly kind: 'bad-pkey' | 'bad-qkey'
      readonly key: number
      readonly path: Omit<ManagementPath, 'qkey' | 'pkey'>
    }

/**
 * What fault rules do to a subnet: another LID for the port, cables between two switches that are pulled (absent names:
 * the first between switches on the way of the port's packets), a manager that dies.
 */
export type Disturbance =
  | { readonly kind: 'lid' }
  | { readonly kind: 'cable'; readonly between?: readonly [string, string] | undefined }
  | { readonly kind: 'manager' }

/** A port's end of the subnet. */
export interface PortSubnet {
  /**
   * A program, or a client of the device's core, sends this datagram of 256 bytes from queue pair 0 (every one, those
   * to the port's own agent too), or from another one to a LID that no port of a device has, such as a switch's.
   */
  send(mad: Uint8Array, path: ManagementPath): void
  news(news: PortNews): void
  /**
   * The ports, or what leads to them in another process, that a data packet from this port to `dlid` reaches by the
   * tables of the switches: at most one, but for multicast. Links keep the answer until `SubnetPort.rerouted`.
   */
  reached(dlid: number): readonly object[]
  /** So many data packets of this port to `dlid` have reached no port: they are counted where they end. */
  lost(dlid: number, packets: number): void
  /**
   * Returns what ends it: plugs the cables, starts a manager. Undefined: there is no such cable or manager, or no end.
   */
  disturb(disturbance: Disturbance): (() => void) | undefined
  /** The device was removed. */
  removed(): void
}

export interface SubnetPort {
  readonly identity: PortIdentity
  /** NodeDescription: at most 64 bytes of UTF-8. */
  readonly description: string
  /** `PortCapFlags`, with SM while a program has the port's issm node open. */
  readonly capabilityMask: number
  readonly settings: SubnetSettings
  /** The IP addresses by which rdma_cm knows the port; 16 bytes each. */
  readonly addresses: readonly Uint8Array[]
  readonly subnet: PortSubnet | undefined
  /** Cables the port to a subnet; undefined: to none. It then is DOWN, or INIT. */
  attach(subnet: PortSubnet | undefined): void
  /**
   * Sets what is given, and raises the events of what changes: PORT_ACTIVE, PORT_ERR, LID_CHANGE, SM_CHANGE,
   * PKEY_CHANGE, GID_CHANGE.
   */
  set(change: Partial<SubnetSettings>): void
  /** Called after each change of what programs see. Set by the owner of the device. */
  changed: () => void
  /**
   * What `reached` answers may be another now. It may be called from within any call, and must call nothing of the
   * subnet.
   */
  rerouted(): void
  /** Raises CLIENT_REREGISTER: a manager asks clients to join and register again. */
  reregister(): void
  /**
   * A datagram for this port that its agent does not take: to queue pair 0 it goes to programs (and is dropped without
   * one), to queue pair 1 to the clients and programs that claim it.
   */
  deliver(mad: Uint8Array, path: ManagementPath): void
}
