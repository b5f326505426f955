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
  /** The time of the last call of each. */
  readonly #clients = new Map<SlotClient, number>()

  /** False if there are too many. `now`: microseconds. */
  add(client: SlotClient, now: number): boolean {
    if (this.#clients.size >= MAX_POLLED && !this.#clients.has(client)) return false
    this.#clients.set(client, now)
    return true
  }

  delete(client: SlotClient): void {
    this.#clients.delete(client)
  }

  /** Handles at most one request of each client; true if there was any. `now`: microseconds. */
  poll(now: number): boolean {
    let hadCalls = false
    for (const [client, last] of this.#clients)
      if (client.takeSlot()) {
        hadCalls = true
        if (this.#clients.has(client)) this.#clients.set(client, now)
      } else if (now - last > LINGER) hadCalls = this.#leave(client) || hadCalls
    return hadCalls
  }

  /** Polls no slot any more; true if a client has asked meanwhile. */
  park(): boolean {
    let hadCalls = false
    for (const client of [...this.#clients.keys()]) hadCalls = this.#leave(client) || hadCalls
    return hadCalls
  }

  #leave(client: SlotClient): boolean {
    this.#clients.delete(client)
    return client.leaveSlot() && client.takeSlot()
  }
}
