/*
 * The rate of a port's link, by width and speed (enum ib_port_speed; IBA 14.2.5.6).
 */
import { LinkSpeed, LinkWidth } from './enums.ts'

const { X1, X2, X4, X8, X12 } = LinkWidth.values
const LANES: Readonly<Record<number, number>> = { [X1]: 1, [X2]: 2, [X4]: 4, [X8]: 8, [X12]: 12 }
/** In units of 100 Mb/s. */
const LANE_RATES: Readonly<Record<string, number>> = {
  SDR: 25,
  DDR: 50,
  QDR: 100,
  FDR10: 100,
  FDR: 140,
  EDR: 250,
  HDR: 500,
  NDR: 1000,
}

interface LinkAttributes {
  readonly activeWidth: number
  readonly activeSpeed: number
}

/** The number of lanes of a width; as in Linux, 1 if there is no such width. */
export const lanesOf = ({ activeWidth }: Pick<LinkAttributes, 'activeWidth'>): number => LANES[activeWidth] ?? 1
/** The name of a speed; as in Linux, SDR if there is no such speed. */
export const speedName = ({ activeSpeed }: Pick<LinkAttributes, 'activeSpeed'>): string =>
  Object.entries(LinkSpeed.values).find(([name, value]) => value === activeSpeed && name in LANE_RATES)?.[0] ?? 'SDR'
interface EthernetRow extends LinkAttributes {
  /** Of interfaces with up to this speed, Mb/s. */
  readonly megabits: number
}

/** Those of rxe on Linux (ib_get_width_and_speed without lanes). */
const ETHERNET: readonly EthernetRow[] = [
  { megabits: 1000, activeWidth: X1, activeSpeed: LinkSpeed.values.SDR },
  { megabits: 10_000, activeWidth: X1, activeSpeed: LinkSpeed.values.FDR10 },
  { megabits: 20_000, activeWidth: X4, activeSpeed: LinkSpeed.values.DDR },
  { megabits: 25_000, activeWidth: X1, activeSpeed: LinkSpeed.values.EDR },
  { megabits: 40_000, activeWidth: X4, activeSpeed: LinkSpeed.values.FDR10 },
  { megabits: Number.POSITIVE_INFINITY, activeWidth: X4, activeSpeed: LinkSpeed.values.EDR },
]
/** Those of mlx5 on Linux (translate_eth_proto_oper), which reads the speed from the adapter. */
const ADAPTER_ETHERNET: readonly EthernetRow[] = [
  { megabits: 1000, activeWidth: X1, activeSpeed: LinkSpeed.values.SDR },
  { megabits: 5000, activeWidth: X1, activeSpeed: LinkSpeed.values.DDR },
  { megabits: 10_000, activeWidth: X1, activeSpeed: LinkSpeed.values.QDR },
  { megabits: 25_000, activeWidth: X1, activeSpeed: LinkSpeed.values.EDR },
  { megabits: 40_000, activeWidth: X4, activeSpeed: LinkSpeed.values.QDR },
  { megabits: 50_000, activeWidth: X1, activeSpeed: LinkSpeed.values.HDR },
  { megabits: 56_000, activeWidth: X4, activeSpeed: LinkSpeed.values.FDR },
  { megabits: 100_000, activeWidth: X4, activeSpeed: LinkSpeed.values.EDR },
  { megabits: 200_000, activeWidth: X4, activeSpeed: LinkSpeed.values.HDR },
  { megabits: Number.POSITIVE_INFINITY, activeWidth: X4, activeSpeed: LinkSpeed.values.NDR },
]

/** Width and speed of a port, by the speed of its interface in Mb/s; undefined: the interface tells none. */
export type EthernetLink = (speed?: number) => LinkAttributes & { readonly activeSpeedEx: number }
const linkOf =
  (table: readonly EthernetRow[], unknown: number): EthernetLink =>
  (speed = unknown) => {
    const { activeWidth, activeSpeed } = table.find(({ megabits }) => speed <= megabits)!
    return { activeWidth, activeSpeed, activeSpeedEx: activeSpeed }
  }
/** Of a RoCE port of rxe. As on Linux, an unknown speed is 1000. */
export const ethernetLink = linkOf(ETHERNET, 1000)
/** Of a port of an adapter: where no interface tells a speed, and on InfiniBand, the 100 Gb/s of a ConnectX-5. */
export const adapterLink = linkOf(ADAPTER_ETHERNET, 100_000)

/** In units of 100 Mb/s. */
export const linkRate = (attributes: LinkAttributes): number => LANE_RATES[speedName(attributes)]! * lanesOf(attributes)
