/*
 * A port of an adapter or a switch as subnet management sees it: the attributes of the port, which its node's agent
 * answers from and writes to (agent.ts), and its counters.
 */
import { LinkSpeed, LinkWidth } from '../../spec/enums.ts'
import { GUID_BLOCK, PhysicalState, PKEY_BLOCK, PortState } from '../../spec/wire/subnet.ts'
import { type SmAttribute, smCodecs } from '../../transport/wire/mad/subnet.ts'

export type PortInfo = SmAttribute<'PortInfo'>

export interface PortOptions {
  /** Default: 0, which external ports of switches have. */
  readonly guid?: bigint
  /** The table of partition keys; default: only the default partition. Up to `pkeyCap` entries. */
  readonly pkeys?: readonly number[]
  readonly pkeyCap?: number
  /** PortCapability. */
  readonly capabilityMask?: number
  /** MTU as in a PortInfo; default 4096. */
  readonly mtuCap?: number
  /** Entries of the table of GUIDs. */
  readonly guidCap?: number
  /** Default: 4 lanes of EDR. */
  readonly linkWidth?: number
  /** LinkSpeed. */
  readonly linkSpeed?: number
}

/** Of a port without M_Key. */
const VL_ARBITRATION_CAP = 8
/** MTU 4096. */
const MTU_4096 = 5
/** One data lane, as vlCap and operationalVls. */
const VL0 = 1
const POLLING = 2
const GUID_CAP = 8
const DEFAULT_PKEY_CAP = 128

const { SDR, DDR, QDR, FDR } = LinkSpeed.values
/** Speeds beyond QDR are extended ones: FDR is 1 (IBA 14.2.5.6). */
const BASE_SPEEDS = SDR | DDR | QDR
const extended = (speed: number): number => (speed >= FDR ? speed / FDR : 0)

/** The counters of a port, by names of files in Linux's `counters` (spec/counters.ts). */
type Counters = Record<string, number>

export class NodePort {
  /** 0: the management port of a switch. */
  readonly number: number
  /** Changed by the agent, and by the link. */
  readonly info: PortInfo
  readonly pkeys: number[]
  readonly guids: bigint[]
  /** By input port; adapters have 0 only. */
  readonly slToVl = new Map<number, readonly number[]>()
  /** Four blocks: low priority, then high priority. */
  readonly vlArbitration: (readonly number[])[]
  readonly counters: Counters = {}

  constructor(number: number, isSwitch: boolean, options: PortOptions) {
    const {
      guid = 0n,
      pkeys = [],
      pkeyCap = DEFAULT_PKEY_CAP,
      guidCap = GUID_CAP,
      linkWidth = LinkWidth.values.X4,
    } = options
    const { linkSpeed = LinkSpeed.values.EDR, mtuCap = MTU_4096, capabilityMask = 0 } = options
    this.number = number
    this.pkeys = [...pkeys, ...Array<number>(Math.max(PKEY_BLOCK, pkeyCap)).fill(0)].slice(
      0,
      Math.ceil(pkeyCap / PKEY_BLOCK) * PKEY_BLOCK,
    )
    const isEndPort = !isSwitch || number === 0
    this.guids = isEndPort ? [guid, ...Array<bigint>(guidCap - 1).fill(0n)] : []
    this.vlArbitration = Array.from({ length: 4 }, (_, block) =>
      Array.from({ length: PKEY_BLOCK }, (__, i) => (i === 0 && block % 2 === 0 ? 64 : 0)),
    )
    this.info = {
      ...smCodecs.PortInfo.parse(new Uint8Array(smCodecs.PortInfo.bytes)),
      capabilityMask,
      localPort: number,
      linkWidthEnabled: linkWidth,
      linkWidthSupported: linkWidth,
      linkWidthActive: linkWidth,
      linkSpeedSupported: BASE_SPEEDS,
      linkSpeedActive: Math.min(linkSpeed, QDR),
      linkSpeedEnabled: BASE_SPEEDS,
      linkSpeedExtActive: extended(linkSpeed),
      linkSpeedExtSupported: linkSpeed >= FDR ? 2 * extended(linkSpeed) - 1 : 0,
      linkSpeedExtEnabled: linkSpeed >= FDR ? 2 * extended(linkSpeed) - 1 : 0,
      portState: PortState.DOWN,
      physicalState: PhysicalState.POLLING,
      linkDownDefaultState: POLLING,
      neighborMtu: mtuCap,
      mtuCap,
      vlCap: VL0,
      operationalVls: VL0,
      vlArbitrationHighCap: VL_ARBITRATION_CAP,
      vlArbitrationLowCap: VL_ARBITRATION_CAP,
      guidCap: this.guids.length,
    }
    // The management port of a switch has no link.
    if (isSwitch && number === 0) this.linkUp()
  }

  get isUp(): boolean {
    return this.info.portState !== PortState.DOWN
  }
  /** Whether packets other than subnet management leave here. */
  get isActive(): boolean {
    return this.info.portState === PortState.ACTIVE
  }

  linkUp(): void {
    this.info.portState = PortState.INIT
    this.info.physicalState = PhysicalState.LINK_UP
  }

  /** Keeps a physical state that management has set. */
  linkDown(): void {
    this.info.portState = PortState.DOWN
    if (this.info.physicalState !== PhysicalState.DISABLED) this.info.physicalState = PhysicalState.POLLING
  }

  count(counter: string, by = 1): void {
    this.counters[counter] = (this.counters[counter] ?? 0) + by
  }
}

/** Number of entries of the table of GUIDs in blocks of a GUIDInfo. */
export const guidBlocks = ({ guids }: NodePort): number => Math.ceil(guids.length / GUID_BLOCK)
