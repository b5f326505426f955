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
/** Linux's width and speed of a RoCE port whose interface has up to `megabits` (ib_get_width_and_speed without lanes). */
const ETHERNET = [
  { megabits: 1000, activeWidth: X1, activeSpeed: LinkSpeed.values.SDR },
  { megabits: 10_000, activeWidth: X1, activeSpeed: LinkSpeed.values.FDR10 },
  { megabits: 20_000, activeWidth: X4, activeSpeed: LinkSpeed.values.DDR },
  { megabits: 25_000, activeWidth: X1, activeSpeed: LinkSpeed.values.EDR },
  { megabits: 40_000, activeWidth: X4, activeSpeed: LinkSpeed.values.FDR10 },
  { megabits: Number.POSITIVE_INFINITY, activeWidth: X4, activeSpeed: LinkSpeed.values.EDR },
] as const

/** Width and speed of a RoCE port, by the speed of its interface in Mb/s. As on Linux, an unknown speed is 1000. */
export const ethernetLink = (speed = 1000): Required<LinkAttributes> => {
  const { activeWidth, activeSpeed } = ETHERNET.find(({ megabits }) => speed <= megabits)!
  return { activeWidth, activeSpeed }
}

/** In units of 100 Mb/s. */
export const linkRate = (attributes: LinkAttributes): number => LANE_RATES[speedName(attributes)]! * lanesOf(attributes)
