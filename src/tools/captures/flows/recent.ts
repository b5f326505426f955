/*
 * The packets that all flows sent last, by flow and PSN: when, and of which message. A packet that comes again is
 * compared with the one before, and a refused PSN is looked for.
 *
 * Memory does not grow with the packets: a later packet may take the place of another one, which then counts as sent
 * long ago.
 */

/** Entries at first, and after so many packets: most captures of tests are small. */
const FIRST = 1 << 12
const LATER = 1 << 17
/**
 * Words of an entry: flow and role, PSN, identity, PSN of the message's first packet, opcode, frame, and the time, a
 * double.
 */
const WORDS = 8
const KEY = 0
const PSN = 1
const IDENTITY = 2
const START = 3
const OPCODE = 4
const FRAME = 5
/** Entries of the view of doubles, and the place of the time. */
const DOUBLES = WORDS / 2
const TIME = 3
/** Words of a message's first packet: remote address (high, low), rkey, bytes. */
const REMOTE = 4

/** Requests and answers of a flow have PSNs of their own. */
export const Sent = { REQUEST: 0, ANSWER: 1 } as const

export class RecentPackets {
  #entries = FIRST
  #words = new Int32Array(WORDS * FIRST)
  #times = new Float64Array(this.#words.buffer)
  #remotes = new Uint32Array(REMOTE * FIRST)
  /** Hashes of some bytes behind the headers; requests have them. */
  #contents = new Int32Array(FIRST)
  #added = 0

  /** The place of a packet; `key`: of its flow and role. */
  #slotOf(key: number, psn: number): number {
    // Packets in order lie beside each other.
    return ((Math.imul(key, 0x9e37_79b1) >>> 7) + psn) & (this.#entries - 1)
  }

  /** The entry of a packet; -1: not sent, or long ago. `flow`: its number. */
  find(flow: number, role: number, psn: number): number {
    const key = 2 * flow + role + 1
    const slot = this.#slotOf(key, psn)
    const words = this.#words
    return words[WORDS * slot + KEY] === key && words[WORDS * slot + PSN] === psn ? slot : -1
  }

  /** Nanoseconds since the start of the capture. */
  timeOf(slot: number): number {
    return this.#times[DOUBLES * slot + TIME]
  }

  setTime(slot: number, time: number): void {
    this.#times[DOUBLES * slot + TIME] = time
  }

  identityOf(slot: number): number {
    return this.#words[WORDS * slot + IDENTITY]
  }

  contentOf(slot: number): number {
    return this.#contents[slot]
  }

  setContent(slot: number, content: number): void {
    this.#contents[slot] = content
  }

  opcodeOf(slot: number): number {
    return this.#words[WORDS * slot + OPCODE]
  }

  frameOf(slot: number): number {
    return this.#words[WORDS * slot + FRAME] >>> 0
  }

  /** The PSN of the message's first packet; -1: not known. */
  startOf(slot: number): number {
    return this.#words[WORDS * slot + START]
  }

  /** Of a message's first packet: high and low word of the remote address, rkey, bytes. */
  remoteOf(slot: number, word: number): number {
    return this.#remotes[REMOTE * slot + word]
  }

  /** Adds a packet, or its new time. `start`: PSN of the message's first packet. Returns its entry. */
  add(
    flow: number,
    role: number,
    psn: number,
    time: number,
    identity: number,
    opcode: number,
    start: number,
    frame: number,
  ): number {
    if (this.#added < FIRST && ++this.#added === FIRST) this.#grow()
    const key = 2 * flow + role + 1
    const slot = this.#slotOf(key, psn)
    const at = WORDS * slot
    const words = this.#words
    words[at + KEY] = key
    words[at + PSN] = psn
    words[at + IDENTITY] = identity
    words[at + START] = start
    words[at + OPCODE] = opcode
    words[at + FRAME] = frame
    this.#times[DOUBLES * slot + TIME] = time
    return slot
  }

  /** What a message's first packet says of remote memory. */
  setRemote(slot: number, high: number, low: number, rkey: number, bytes: number): void {
    const at = REMOTE * slot
    const remotes = this.#remotes
    remotes[at] = high
    remotes[at + 1] = low
    remotes[at + 2] = rkey
    remotes[at + 3] = bytes
  }

  /** The first packet was cut. */
  setNoRemote(slot: number): void {
    this.#words[WORDS * slot + START] = -1
  }

  #grow(): void {
    const [words, remotes, contents, entries] = [this.#words, this.#remotes, this.#contents, this.#entries]
    this.#entries = LATER
    this.#words = new Int32Array(WORDS * this.#entries)
    this.#times = new Float64Array(this.#words.buffer)
    this.#remotes = new Uint32Array(REMOTE * this.#entries)
    this.#contents = new Int32Array(this.#entries)
    for (let slot = 0; slot < entries; slot++) {
      const at = WORDS * slot
      if (words[at + KEY] === 0) continue
      const to = this.#slotOf(words[at + KEY], words[at + PSN])
      this.#words.set(words.subarray(at, at + WORDS), WORDS * to)
      this.#remotes.set(remotes.subarray(REMOTE * slot, REMOTE * slot + REMOTE), REMOTE * to)
      this.#contents[to] = contents[slot]
    }
  }
}
