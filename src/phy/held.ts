/*
 * Packets that a fault layer holds back: copied into room in the arena that the port lends, until enough others have
 * passed them or their time has come. Time is what the caller says it is; a packet's wait begins with the first
 * `onTimeout` after it was held.
 */
import type { Fate, FlowAddress, Port, ReceivedRun } from './port.ts'

/** Room for one packet: path MTU 4096 and all headers there are. */
const SLOT_BYTES = 4224
/** Rooms that are borrowed from the port at most. */
const MAX_ROOMS = 8

interface Held {
  readonly slot: number
  readonly length: number
  readonly from: FlowAddress
  readonly identification: number
  readonly fate: Fate
  /** Packets that must still pass it; Infinity if only time counts. */
  passing: number
  /** Microseconds. */
  readonly wait: number
  /** When it leaves; -1 until the time is known. */
  due: number
  ready: boolean
}

export interface HeldPackets {
  readonly count: number
  /**
   * Copies the packet of `length` bytes at `offset` away, until `passing` others have passed or `wait` microseconds are
   * over. False if there is no room.
   */
  hold(
    offset: number,
    length: number,
    from: FlowAddress,
    identification: number,
    fate: Fate,
    passing: number,
    wait: number,
  ): boolean
  /** `count` packets go past those that are held. */
  pass(count: number): void
  /** How many packets may pass before a held one must come. */
  untilNext(): number
  /** Hands on the ready packet that is due first and says what it is; undefined if none is ready. */
  take(run: ReceivedRun): Fate | undefined
  /** Everything held is ready. */
  readyAll(): void
  /** The room of what was handed on is free again. */
  release(): void
  /** Gives borrowed room back to the port once nothing lies in it. */
  giveRooms(): void
  /** Forgets everything that is held. */
  clear(): void
  nextTimeout(): number
  /** True if something became ready. */
  onTimeout(now: number): boolean
}

export const createHeldPackets = (port: Port): HeldPackets => {
  const { arena } = port
  const held: Held[] = []
  const rooms: number[] = []
  const freeSlots: number[] = []
  /** Slots of packets that were handed on and not released. */
  const lentSlots: number[] = []

  const takeSlot = (): number => {
    if (freeSlots.length === 0 && rooms.length < MAX_ROOMS) {
      const count = Math.floor(port.maxBytes / SLOT_BYTES)
      const room = port.takeRoom(count * SLOT_BYTES)
      if (room >= 0) {
        rooms.push(room)
        for (let i = count - 1; i >= 0; i--) freeSlots.push(room + i * SLOT_BYTES)
      }
    }
    return freeSlots.pop() ?? -1
  }
  /** One that has been passed counts as due at once. */
  const isBefore = (a: Held, b: Held): boolean => b.passing > 0 && (a.passing <= 0 || a.due < b.due)

  return {
    get count() {
      return held.length
    },
    hold: (offset, length, from, identification, fate, passing, wait) => {
      const slot = length <= SLOT_BYTES ? takeSlot() : -1
      if (slot < 0) return false
      arena.bytes.copyWithin(slot, offset, offset + length)
      held.push({ slot, length, from, identification, fate, passing, wait, due: -1, ready: false })
      return true
    },
    pass: count => {
      for (const packet of held) {
        packet.passing -= count
        if (packet.passing <= 0) packet.ready = true
      }
    },
    untilNext: () => {
      let least = Number.POSITIVE_INFINITY
      for (const packet of held) if (packet.passing < least) least = packet.passing
      return least
    },
    take: run => {
      let best = -1
      for (let i = 0; i < held.length; i++) if (held[i].ready && (best < 0 || isBefore(held[i], held[best]))) best = i
      if (best < 0) return undefined
      const [packet] = held.splice(best, 1)
      lentSlots.push(packet.slot)
      run.offset = packet.slot
      run.packetBytes = packet.length
      run.count = 1
      run.lastBytes = packet.length
      run.peer = port.peerOf(packet.from.source)
      run.from = packet.from
      run.identification = packet.identification
      return packet.fate
    },
    readyAll: () => {
      for (const packet of held) packet.ready = true
    },
    release: () => {
      if (lentSlots.length > 0) freeSlots.push(...lentSlots.splice(0))
    },
    giveRooms: () => {
      if (held.length + lentSlots.length > 0) return
      for (const room of rooms.splice(0)) port.giveRoom(room)
      freeSlots.length = 0
    },
    clear: () => {
      for (const { slot } of held.splice(0)) freeSlots.push(slot)
    },
    nextTimeout: () => {
      let first = Number.POSITIVE_INFINITY
      // One that waits without a time yet needs the time now.
      for (const packet of held) if (!packet.ready) first = Math.min(first, Math.max(packet.due, 0))
      return first
    },
    onTimeout: now => {
      let became = false
      for (const packet of held) {
        if (packet.ready) continue
        if (packet.due < 0) packet.due = now + packet.wait
        if (packet.due > now) continue
        packet.ready = true
        became = true
      }
      return became
    },
  }
}
