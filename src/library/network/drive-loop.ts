/*
 * Drives the devices of a network in this process from the program's event loop: a drive polls them until they have no
 * work. Drives run
 * - in a microtask after the program has posted or made a call, and when an asynchronous call ends;
 * - when the program polls an empty CQ, an event queue or a UDP socket, or waits for a completion;
 * - when a client (connection manager, IP) has work;
 * - when packets arrive;
 * - when a device's timer expires.
 * Microtasks run before timers and sockets of the program. Therefore only BUDGET drives in microtasks and waits are
 * allowed in a turn of the event loop; further drives and waits continue in the next turn.
 */
import { ScanScope } from '../../core/driver-contract.ts'
import { expire } from '../../core/events/events.ts'
import { nextDue } from '../../core/events/thresholds.ts'
import type { Core } from '../../core/model.ts'
import type { SoftDevice } from '../../drivers/registered.ts'
import { type Clock, nextTurnOf, type Timer } from '../../host/event-loop/clock.ts'
import type { Clients } from '../../services/clients.ts'
import type { PacketCarrier } from '../../transport/phy/links/packet-carrier.ts'
import type { DeviceMarks } from './marks.ts'
import { publishWaits } from './observe.ts'

/** Maximum rounds of one drive, so that the event loop runs while devices keep each other busy. */
export const MAX_ROUNDS = 64
/** Microseconds after which a drive starts no further round. */
const LONGEST_DRIVE = 1000
/** Maximum drives of `kick`, and waits of programs, in one turn of the event loop. */
const BUDGET = 256
/** One of CLOCK_INTERVAL idle drives reads the clock, because reading takes longer than the rest of the drive. */
const CLOCK_INTERVAL = 32

interface Driven {
  readonly core: Core
  readonly clients: Clients
  readonly clock: Clock
  readonly devices: readonly SoftDevice[]
  readonly marks: DeviceMarks
  /**
   * Devices get work only from `touch`, `kick` and timers; other drives are skipped, so that polling an empty CQ costs
   * almost nothing.
   */
  readonly isMemoryLink: boolean
  /** Devices may get work without being marked. */
  readonly mayHaveAny: boolean
  /** Devices may delay any work (torment), or packets take time. */
  readonly hasDelays: boolean
  /** Brings packets over links. */
  readonly carrier: PacketCarrier | undefined
  readonly stallWatches: ReadonlySet<() => void>
}

/** Functions that a network passes on as its own (`LocalNetwork`) are properties. */
export class DriveLoop {
  readonly #driven: Driven
  /** Reading a virtual clock costs nothing, and a skipped drive must not depend on how many there were. */
  readonly #clockInterval: number
  #untilClockRead: number
  #isTouched = true
  /** Whether a call was made since the last drive: it may have set a timer. */
  #wasCalled = true
  #isDriving = false
  /** Whether `#runScheduled` will run: in a microtask, or in the next turn of the event loop. */
  #isScheduled = false
  /** Whether a drive stopped before its work was done; `#resume` continues it in the next turn of the event loop. */
  #isInterrupted = false
  #budget = BUDGET
  /** The timer of the devices. */
  #timer: Timer | undefined
  /** When `#timer` is due, in microseconds; Infinity if it is not armed, -Infinity once it has fired. */
  #timerDue = Number.POSITIVE_INFINITY
  #clientTimer: Timer | undefined
  #clientsDue = Number.POSITIVE_INFINITY

  constructor(driven: Driven) {
    this.#driven = driven
    this.#clockInterval = driven.clock.isVirtual ? 1 : CLOCK_INTERVAL
    this.#untilClockRead = this.#clockInterval
  }

  get isDriving(): boolean {
    return this.#isDriving
  }

  /** See `Carrier.awaitsNextTurn`. */
  awaitsNextTurn = (): boolean => this.#isInterrupted

  /** See `Carrier.drive`. */
  drive = (): boolean => {
    if (this.#isDriving) return false
    const { clock, marks, carrier, isMemoryLink, mayHaveAny, hasDelays } = this.#driven
    const hasArrivals = carrier !== undefined && carrier.links.nextAt() <= clock.now() && carrier.poll()
    if (isMemoryLink && !this.#isTouched && !hasArrivals && !this.#hasTimerExpired()) return false
    this.#isDriving = true
    this.#isTouched = false
    if (mayHaveAny) marks.markAll()
    const hasPosts = this.#processPosts()
    // Usually all work is done now; the rounds of `#drive`, and `#armTimer` after them, are expensive.
    if (this.#timerDue !== Number.POSITIVE_INFINITY || this.#hasWork()) return this.#drive() || hasPosts
    this.#isDriving = false
    // Without a call only the timer of event moderation may be new: a completion starts it. Torment may also delay a
    // post or its completion, and packets may be in flight.
    if (this.#wasCalled || hasDelays) this.#armTimer()
    else this.scheduleTimers()
    this.#wasCalled = false
    return hasPosts
  }

  /** As `LocalNetwork.kick`. */
  kick = (device?: SoftDevice): void => {
    this.#isTouched = true
    if (device === undefined) this.#driven.marks.markAll()
    else this.#driven.marks.mark(device)
    if (this.#isScheduled) return
    this.#isScheduled = true
    if (this.#spend()) queueMicrotask(this.#runScheduled)
  }

  /** As `LocalNetwork.touch`. */
  touch = (device?: SoftDevice): void => {
    this.#wasCalled = true
    this.kick(device)
  }

  /** See `Carrier.overdueTurn`. */
  overdueTurn = (): Promise<void> | undefined => (this.#spend() ? undefined : nextTurnOf(this.#driven.clock))

  /** As `LocalNetwork.scheduleTimers`. */
  scheduleTimers = (): void => {
    this.#scheduleClients()
    if (nextDue(this.#driven.core) < this.#timerDue) this.#armTimer()
  }

  /** Arms the timer again without the timers of a removed device. */
  rearm(): void {
    this.#disarm()
    this.#armTimer()
  }

  /** The rounds of a drive; true if there was work. */
  #drive(): boolean {
    const { clock, devices, stallWatches } = this.#driven
    let hasWorked = false
    let isBusy = true
    const start = clock.now()
    for (let round = 0, now = start; round < MAX_ROUNDS && isBusy && now - start < LONGEST_DRIVE; round++) {
      const hasProgress = this.#pollAll(now)
      hasWorked = hasProgress || hasWorked
      isBusy = hasProgress && this.#hasWork()
      now = clock.now()
    }
    this.#isDriving = false
    publishWaits(devices)
    for (const look of stallWatches) look()
    if (isBusy) this.#driveNextTurn()
    this.#armTimer()
    this.#wasCalled = false
    return hasWorked
  }

  /** One round of a drive; true if there was work. `now` in microseconds. */
  #pollAll(now: number): boolean {
    const { core, devices, marks } = this.#driven
    let hasWorked = false
    const hasExpired = now >= this.#timerDue
    if (hasExpired) {
      this.#disarm()
      marks.markDue(now)
    }
    // CHANGED: only queue pairs that `onDoorbell` has reported are checked for requests.
    for (let i = marks.next(0); i >= 0; i = marks.next(i + 1))
      if (hasExpired || devices[i]!.hasWork()) hasWorked = devices[i]!.poll(now, ScanScope.CHANGED) || hasWorked
    return (hasExpired && expire(core, now)) || hasWorked
  }

  /** Processes the requests of queues that were reported by `onDoorbell`; true if there were any. */
  #processPosts(): boolean {
    const { devices, marks } = this.#driven
    let hasPosts = false
    for (let i = marks.next(0); i >= 0; i = marks.next(i + 1)) hasPosts = devices[i]!.scanChanged() || hasPosts
    return hasPosts
  }

  #hasWork(): boolean {
    const { devices, marks } = this.#driven
    for (let i = marks.next(0); i >= 0; i = marks.next(i + 1)) if (devices[i]!.hasWork()) return true
    return false
  }

  // ---- timers ----

  /** Whether the timer is due; reads the clock only now and then, because that allocates a double. */
  #hasTimerExpired(): boolean {
    if (this.#timerDue === Number.POSITIVE_INFINITY || --this.#untilClockRead > 0) return false
    this.#untilClockRead = this.#clockInterval
    return this.#driven.clock.now() >= this.#timerDue
  }

  #disarm(): void {
    this.#driven.clock.clear(this.#timer)
    this.#timerDue = Number.POSITIVE_INFINITY
  }

  #armTimer(): void {
    const { core, clock, marks } = this.#driven
    this.#scheduleClients()
    const due = Math.min(nextDue(core), marks.settle())
    if (due >= this.#timerDue) return
    clock.clear(this.#timer)
    this.#timerDue = due
    this.#timer = clock.at(due, 'device', this.#onTimer)
  }

  readonly #onTimer = (): void => {
    // Node's timers may fire slightly early. The drive then finds no expired timer, and arms the timer again.
    this.#timerDue = Number.NEGATIVE_INFINITY
    this.#isTouched = true
    this.drive()
  }

  /**
   * Arms the timer of clients (connection manager, IP). The timer does not keep the process alive, because the program
   * may not wait for the clients' connections and packets.
   */
  #scheduleClients(): void {
    const { clients, clock } = this.#driven
    const due = clients.nextTimeout()
    if (due >= this.#clientsDue) return
    clock.clear(this.#clientTimer)
    this.#clientsDue = due
    this.#clientTimer = clock.at(due, 'background', this.#onClientTimer)
  }

  readonly #onClientTimer = (): void => {
    this.#clientsDue = Number.POSITIVE_INFINITY
    this.#driven.clients.onTimeout(this.#driven.clock.now())
    this.#scheduleClients()
  }

  // ---- turns of the event loop ----

  /** Takes one from the budget of this turn of the event loop; false if the budget is used up. */
  #spend(): boolean {
    if (this.#budget === BUDGET) this.#driven.clock.onNextTurn(this.#renewBudget)
    if (this.#budget === 0) return false
    this.#budget--
    return true
  }

  /** In the next turn: renews the budget, and runs the drive that was over the budget. */
  readonly #renewBudget = (): void => {
    this.#budget = BUDGET
    if (this.#isScheduled && !this.#isInterrupted) this.#runScheduled()
  }

  readonly #runScheduled = (): void => {
    this.#isScheduled = false
    this.drive()
  }

  /** Continues an interrupted drive in the next turn of the event loop, after the rest of the process. */
  #driveNextTurn(): void {
    this.#isTouched = true
    if (this.#isInterrupted) return
    this.#isInterrupted = true
    this.#isScheduled = true
    this.#driven.clock.onNextTurn(this.#resume)
  }

  readonly #resume = (): void => {
    this.#isInterrupted = false
    this.#runScheduled()
  }
}
