/*
 * The call slots that the loop looks at while it is awake: those of clients that have called lately. Before the loop
 * parks, no slot is polled any more, so that clients send CALL (spec/session.ts).
 */

/** A client with a call slot. */
export interface SlotClient {
  /** Handles the next request of the slot; false: there is none. */
  takeSlot(): boolean
  /** The client no longer relies on the slot being polled. True if it has just asked. */
  leaveSlot(): boolean
}

/** Microseconds after its last call for which a slot is polled. */
const LINGER = 1000
/** Maximum number of polled slots. */
const MAX_POLLED = 32

export class PolledSlots {
  readonly #clients: SlotClient[] = []
  /** The time of the last call of each. */
  readonly #times: number[] = []

  /** False if there are too many. `now`: microseconds. */
  add(client: SlotClient, now: number): boolean {
    const at = this.#clients.indexOf(client)
    if (at >= 0) this.#times[at] = now
    else if (this.#clients.length === MAX_POLLED) return false
    else {
      this.#clients.push(client)
      this.#times.push(now)
    }
    return true
  }

  delete(client: SlotClient): void {
    const at = this.#clients.indexOf(client)
    if (at < 0) return
    this.#clients.splice(at, 1)
    this.#times.splice(at, 1)
  }

  /** Handles at most one request of each client; true if there was any. `now`: microseconds. */
  poll(now: number): boolean {
    let hadCalls = false
    // backwards: a call may end its session
    for (let i = this.#clients.length - 1; i >= 0; i--) {
      const client = this.#clients[i]
      if (client === undefined) continue
      if (client.takeSlot()) {
        hadCalls = true
        if (this.#clients[i] === client) this.#times[i] = now
      } else if (now - this.#times[i]! > LINGER) hadCalls = this.#leave(client) || hadCalls
    }
    return hadCalls
  }

  /** Polls no slot any more; true if a client has asked meanwhile. */
  park(): boolean {
    let hadCalls = false
    for (let client = this.#clients.at(-1); client !== undefined; client = this.#clients.at(-1))
      hadCalls = this.#leave(client) || hadCalls
    return hadCalls
  }

  #leave(client: SlotClient): boolean {
    this.delete(client)
    return client.leaveSlot() && client.takeSlot()
  }
}
