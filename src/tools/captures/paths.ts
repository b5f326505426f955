/*
 * Packets followed over the points of several captures, by their aligned times: where each was seen, how long it took
 * from point to point, and which left one and never came to the next.
 *
 * Packets come in the order of their times. What is remembered of one ends after a window that is longer than the
 * delays: memory depends on the rate of packets, not on their number.
 */

/** The packets from one address to another, over the points that saw any of them. Points are numbers of captures. */
export interface PathReport {
  /** Numbers of addresses. */
  readonly source: number
  readonly destination: number
  /** In the order in which packets come to them. */
  readonly points: readonly PointReport[]
  /** Packets that any point saw. */
  readonly packets: number
}

interface PointReport {
  readonly point: number
  /** Packets that this point saw. */
  seen: number
  /** Packets that passed an earlier point, and neither this one nor a later one. */
  lost: number
  /** As `lost`, but after this point's last packet: its capture may have ended. */
  late: number
  /** Packets that a later point saw and this one did not: its capture misses them. */
  missed: number
  /** From the point before, in nanoseconds, of packets that both saw. */
  delays: number
  delaySum: number
  delayMax: number
}

/** Packets of a flow (a queue pair at an address) that did not come to a point. */
export interface LostReport {
  readonly source: number
  readonly destination: number
  readonly qpn: number
  /** The last point that they passed, and the next one. */
  readonly from: number
  readonly to: number
  /** After the last packet that `to` has of anyone. */
  readonly isLate: boolean
  count: number
  /** Frames at `from` of the first ones. */
  readonly frames: number[]
}

interface Followed {
  readonly number: number
  readonly path: Path
  readonly qpn: number
  readonly time: number
  /** By point: the time, and the frame; NaN: not seen. */
  readonly times: Float64Array
  readonly frames: Float64Array
  /** Another packet of the same number. */
  next: Followed | undefined
  isOver: boolean
}

interface Path extends PathReport {
  readonly points: PointReport[]
  packets: number
}

/** The time that a capture has, by aligned clocks. */
interface Span {
  readonly from: number
  readonly to: number
}

interface PathOptions {
  /** Of each capture. */
  readonly spans: readonly Span[]
  /** The points of a direction, in the order in which packets come to them. */
  readonly order: (source: number, destination: number) => readonly number[]
  /** Nanoseconds in which a packet comes to all points, and at least the longest delay. */
  readonly window: number
  readonly longest: number
}

/** Packets that are followed at a time; further ones end the oldest. */
const MAX_FOLLOWED = 1 << 17
const MAX_PATHS = 1 << 16
const MAX_LOST = 1 << 16
const MAX_FRAMES = 4

export class PathTable {
  readonly #paths = new Map<number, Path>()
  readonly #lost = new Map<string, LostReport>()
  readonly #options: PathOptions
  #queue: (Followed | undefined)[] = []
  #from = 0
  readonly #byNumber = new Map<number, Followed>()

  constructor(options: PathOptions) {
    this.#options = options
  }

  get paths(): readonly PathReport[] {
    return [...this.#paths.values()]
  }

  get lost(): readonly LostReport[] {
    return [...this.#lost.values()]
  }

  #pathOf(source: number, destination: number): Path | undefined {
    const key = source * 2 ** 20 + destination
    const known = this.#paths.get(key)
    if (known !== undefined || this.#paths.size === MAX_PATHS) return known
    const points = this.#options.order(source, destination).map(point => ({
      point,
      seen: 0,
      lost: 0,
      late: 0,
      missed: 0,
      delays: 0,
      delaySum: 0,
      delayMax: 0,
    }))
    const path: Path = { source, destination, points, packets: 0 }
    this.#paths.set(key, path)
    return path
  }

  add(
    point: number,
    number: number,
    source: number,
    destination: number,
    qpn: number,
    time: number,
    frame: number,
  ): void {
    this.#expire(time - this.#options.window)
    // The oldest one that this point has not seen.
    let last: Followed | undefined
    for (let one = this.#byNumber.get(number); one !== undefined; one = one.next) {
      if (Number.isNaN(one.times[point])) {
        one.times[point] = time
        one.frames[point] = frame
        return
      }
      last = one
    }
    const path = this.#pathOf(source, destination)
    if (path === undefined || path.points.length < 2) return
    const followed: Followed = {
      number,
      path,
      qpn,
      time,
      times: new Float64Array(this.#options.spans.length).fill(Number.NaN),
      frames: new Float64Array(this.#options.spans.length),
      next: undefined,
      isOver: false,
    }
    followed.times[point] = time
    followed.frames[point] = frame
    if (last === undefined) this.#byNumber.set(number, followed)
    else last.next = followed
    this.#queue.push(followed)
    if (this.#queue.length - this.#from > MAX_FOLLOWED) this.#finish()
  }

  #expire(before: number): void {
    while (this.#from < this.#queue.length && this.#queue[this.#from]!.time < before) this.#finish()
  }

  /** Counts the oldest packet, and forgets it. */
  #finish(): void {
    const followed = this.#queue[this.#from]!
    this.#queue[this.#from++] = undefined
    if (this.#from > MAX_FOLLOWED) {
      this.#queue = this.#queue.slice(this.#from)
      this.#from = 0
    }
    // The oldest of a number is the first of its list.
    if (followed.next === undefined) this.#byNumber.delete(followed.number)
    else this.#byNumber.set(followed.number, followed.next)
    this.#judge(followed)
  }

  #judge({ path, qpn, time: start, times, frames }: Followed): void {
    const { spans, longest } = this.#options
    path.packets++
    const { points } = path
    let lastSeen = points.length - 1
    while (lastSeen >= 0 && Number.isNaN(times[points[lastSeen].point])) lastSeen--
    let before: PointReport | undefined
    for (const [i, report] of points.entries()) {
      const time = times[report.point]
      if (!Number.isNaN(time)) {
        report.seen++
        if (before !== undefined) {
          const delay = time - times[before.point]
          report.delays++
          report.delaySum += delay
          if (delay > report.delayMax) report.delayMax = delay
        }
        before = report
        continue
      }
      const { from, to } = spans[report.point]
      // Before a capture began it can have no packet.
      if (start < from + longest) continue
      const isLate = start > to
      if (i < lastSeen) report.missed++
      else {
        if (isLate) report.late++
        else report.lost++
        const last = points[lastSeen].point
        if (i === lastSeen + 1) this.#addLost(path, qpn, last, report.point, isLate, frames[last])
      }
    }
  }

  #addLost({ source, destination }: Path, qpn: number, from: number, to: number, isLate: boolean, frame: number): void {
    const key = `${source}/${destination}/${qpn}/${from}/${to}/${isLate}`
    let lost = this.#lost.get(key)
    if (lost === undefined) {
      if (this.#lost.size === MAX_LOST) return
      lost = { source, destination, qpn, from, to, isLate, count: 0, frames: [] }
      this.#lost.set(key, lost)
    }
    lost.count++
    if (lost.frames.length < MAX_FRAMES) lost.frames.push(frame)
  }

  /** No more packets. */
  finish(): void {
    this.#expire(Number.POSITIVE_INFINITY)
  }
}
