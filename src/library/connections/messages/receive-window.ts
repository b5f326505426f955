/*
 * The receiver's side of the credits of messages (docs/reference/messages.md): how many frames DATA, OFFER and UNUSED
 * the peer may send. The window grows while the peer uses up its grants, and shrinks when they are not needed.
 */

/** Credits of a peer that has not needed more. With one, each message of a dialogue would use up the credits. */
export const IDLE_WINDOW = 2

/** Counters are modulo 2^32. */
export class ReceiveWindow {
  readonly #max: number
  /** How many frames the peer may have granted or not taken by the program. */
  #size = IDLE_WINDOW
  /** Whether the peer does not know yet that the window has grown. */
  #hasGrown = false
  /** Whether the peer has used up its grants since the last `shrink`. */
  #wasUsedUp = false
  /** Frames that the peer may send, as known here and as told to the peer. */
  #granted = IDLE_WINDOW
  #announced = IDLE_WINDOW
  /** Frames that used a grant: those that have arrived, and those whose message the program has taken. */
  #arrived = 0
  #taken = 0

  /** `max`: of the window, at least IDLE_WINDOW. */
  constructor(max: number) {
    this.#max = max
  }

  /** The counter for the header of a frame; after the frame was posted, call `announced`. */
  get granted(): number {
    return this.#granted
  }

  announced(): void {
    this.#announced = this.#granted
    this.#hasGrown = false
  }

  /** Whether the peer should be told of new grants, by a frame without a message if there is no other. */
  get owesCredits(): boolean {
    return this.#hasGrown || (this.#granted - this.#announced) >>> 0 >= Math.max(IDLE_WINDOW, this.#size >>> 1)
  }

  /** Frames that the peer may send, and frames whose message the program has not taken. */
  get open(): number {
    return (this.#granted - this.#taken) >>> 0
  }

  /** Whether the peer has used all grants that it knows. */
  get isUsedUp(): boolean {
    return this.#arrived === this.#announced
  }

  /** A frame has arrived. False: the peer had no grant for it. */
  use(): boolean {
    if (this.isUsedUp) return false
    this.#arrived = (this.#arrived + 1) >>> 0
    return true
  }

  /** A frame no longer needs its grant; the peer gets another one, unless it has as many as it needs. */
  renew(): void {
    this.#taken = (this.#taken + 1) >>> 0
    if (this.open < this.#size) this.#granted = (this.#granted + 1) >>> 0
  }

  /** The peer does not need a grant that it has used for UNUSED. */
  giveUp(): void {
    this.#size = Math.min(this.#size, Math.max(IDLE_WINDOW, this.open - 1))
    this.renew()
  }

  /**
   * The peer has used up its grants: doubles the window. `addReceive`: called before each grant; throws if it cannot.
   */
  grow(addReceive: () => void): void {
    this.#wasUsedUp = true
    // The window may have shrunk below the grants whose messages nobody has taken.
    const size = Math.min(2 * Math.max(this.#size, this.open), this.#max)
    if (this.open >= size) return
    try {
      while (this.open < size) {
        addReceive()
        this.#granted = (this.#granted + 1) >>> 0
      }
    } catch {
      return
    }
    this.#size = size
    this.#hasGrown = true
  }

  /** Called from time to time: halves the window if the peer has not needed all of it. */
  shrink(): void {
    if (!this.#wasUsedUp && !this.isUsedUp) this.#size = Math.max(IDLE_WINDOW, this.#size >>> 1)
    this.#wasUsedUp = false
  }
}
