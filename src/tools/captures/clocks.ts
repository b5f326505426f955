/*
 * Clocks of several captures, aligned by packets that two of them have. Of each packet there is the time at one point
 * and at another; their difference is the offset of the clocks, plus the drift, plus the delay between the points,
 * which is positive in one direction and negative in the other. Delays are never negative, so the offset lies between
 * the directions, and half of their distance is its error.
 *
 * Nothing here knows files or packets: times in, clocks out. All times are nanoseconds.
 */

/** Times of one packet at two points. `group`: a number of its direction. */
export interface TimePair {
  readonly time: number
  readonly other: number
  readonly group: number
}

/** How another clock goes: it shows `time + offset + drift · (time − origin)`, for a time of the first clock. */
export interface Clock {
  readonly origin: number
  readonly offset: number
  /** Undefined: only one direction has packets, so the delay between the points is part of the offset. */
  readonly offsetError: number | undefined
  readonly drift: number
  readonly driftError: number
  /** Packets that it was computed from. */
  readonly packets: number
  /** By group: how much later, by the aligned clocks, the other point sees packets: the middle and the most. */
  readonly delays: ReadonlyMap<number, { readonly middle: number; readonly most: number }>
}

const SLICES = 32
const ROUNDS = 4
/** Packets that a slice must have. */
const LEAST_IN_SLICE = 1

const middleOf = (sorted: readonly number[]): number => {
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2
}
const sortedOf = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b)

/** The slope of points (x, y), which outliers do not change (Theil and Sen), and the middle deviation of all slopes. */
const slopeOf = (points: readonly (readonly [number, number])[]): { slope: number; error: number } | undefined => {
  const slopes: number[] = []
  for (const [i, [x, y]] of points.entries())
    for (const [otherX, otherY] of points.slice(i + 1)) if (otherX !== x) slopes.push((otherY - y) / (otherX - x))
  if (slopes.length === 0) return undefined
  const slope = middleOf(sortedOf(slopes))
  const deviations = sortedOf(slopes.map(one => Math.abs(one - slope)))
  return { slope, error: middleOf(deviations) / Math.sqrt(Math.max(1, points.length - 1)) }
}

const byGroup = (pairs: readonly TimePair[]): Map<number, TimePair[]> => {
  const groups = new Map<number, TimePair[]>()
  for (const pair of pairs) {
    const group = groups.get(pair.group)
    if (group === undefined) groups.set(pair.group, [pair])
    else group.push(pair)
  }
  return groups
}

/**
 * The clock of the other point. `backOf`: the group of the opposite direction. Undefined: no pairs.
 */
export const clockOf = (pairs: readonly TimePair[], backOf: (group: number) => number): Clock | undefined => {
  if (pairs.length === 0) return undefined
  let origin = Number.POSITIVE_INFINITY
  let end = Number.NEGATIVE_INFINITY
  for (const { time } of pairs) {
    if (time < origin) origin = time
    if (time > end) end = time
  }
  const width = (end - origin) / SLICES || 1
  const groups = byGroup(pairs)
  let drift = 0
  let driftError = 0
  const rest = ({ time, other }: TimePair): number => other - time - drift * (time - origin)
  // Each round takes the drift out, so that the middle of a slice means more.
  for (let round = 0; round < ROUNDS; round++) {
    const found: { slope: number; error: number; weight: number }[] = []
    for (const group of groups.values()) {
      const slices: TimePair[][] = Array.from({ length: SLICES + 1 }, () => [])
      for (const pair of group) slices[Math.floor((pair.time - origin) / width)].push(pair)
      const points = slices
        .filter(({ length }) => length >= LEAST_IN_SLICE)
        .map(slice => [middleOf(sortedOf(slice.map(({ time }) => time))), middleOf(sortedOf(slice.map(rest)))] as const)
      const fit = slopeOf(points)
      if (fit !== undefined) found.push({ ...fit, weight: group.length })
    }
    const weights = found.reduce((sum, { weight }) => sum + weight, 0)
    if (weights === 0) break
    drift += found.reduce((sum, { slope, weight }) => sum + slope * weight, 0) / weights
    driftError = found.reduce((sum, { error, weight }) => sum + error * weight, 0) / weights
  }

  const rests = new Map([...groups].map(([group, list]) => [group, sortedOf(list.map(rest))]))
  const bounds: { low: number; high: number; weight: number }[] = []
  for (const [group, values] of rests) {
    const back = rests.get(backOf(group))
    if (back === undefined || group > backOf(group)) continue
    const [later, sooner] = middleOf(values) > middleOf(back) ? [values, back] : [back, values]
    // The shortest delays: the least of the direction to the other point, the most of the one from it.
    bounds.push({
      low: Math.min(sooner.at(-1)!, later[0]),
      high: Math.max(sooner.at(-1)!, later[0]),
      weight: values.length + back.length,
    })
  }
  let offset: number
  let offsetError: number | undefined
  if (bounds.length === 0) offset = middleOf(sortedOf([...rests.values()].map(middleOf)))
  else {
    const total = bounds.reduce((sum, { weight }) => sum + weight, 0)
    offset = bounds.reduce((sum, { low, high, weight }) => sum + ((low + high) / 2) * weight, 0) / total
    offsetError = Math.max(...bounds.map(({ low, high }) => (high - low) / 2))
  }
  const delays = new Map(
    [...rests].map(([group, values]) => {
      const middle = middleOf(values) - offset
      return [group, { middle, most: middle < 0 ? values[0] - offset : values.at(-1)! - offset }]
    }),
  )
  return { origin, offset, offsetError, drift, driftError, packets: pairs.length, delays }
}

/** A time of the other clock as one of the first. */
export const alignedTime = ({ origin, offset, drift }: Clock, other: number): number =>
  origin + (other - origin - offset) / (1 + drift)
