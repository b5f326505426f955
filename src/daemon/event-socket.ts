/*
 * Events of one fd object on their way to a program: a socket pair whose other end the program holds and reads (design.md section 6).
 *
 * One record is one packet. What does not fit waits here. When an element is destroyed, the library waits until the program has acknowledged as many
 * events as it has read, so withdraw must tell exactly how many it has not: if anything is still unread, the program's own end is fetched
 * (pidfd_getfd), emptied, and what belongs to others is sent again in the same order.
 */
import { fstatSync } from 'node:fs'
import type { Affiliation, EventRecord, EventSink } from '../core/model.ts'
import { watch } from '../host/poll.ts'
import { findFd, type ProcessHandle, pidfdGetfd } from '../host/process.ts'
import { close, outstandingBytes, recvSmall, sendSmall, setBuffers, shutdown, socketPair } from '../host/sockets.ts'

export interface EventSocket extends EventSink {
  /** The program's end, until it has been passed on. */
  readonly theirs: number
  /** What /proc shows for it in whatever process holds it: 'socket:[inode]'. */
  readonly target: string
  /** The program's end was passed on: close our copy. */
  passed(): void
  close(): void
}

const LONGEST_RECORD = 16
/** Room for some hundred records in the kernel; more wait here. */
const BUFFER_BYTES = 64 * 1024

/**
 * `holder`: the process that makes the present call, where its end is looked for. `hungUp`: the program closed its last copy.
 */
export const createEventSocket = (holder: () => ProcessHandle | undefined, hungUp: () => void): EventSocket => {
  const [ours, theirs] = socketPair()
  setBuffers(ours, { send: BUFFER_BYTES })
  const target = `socket:[${fstatSync(theirs).ino}]`
  const scratch = new Uint8Array(LONGEST_RECORD)
  let theirsOpen = true
  let closed = false
  /** Sent, and perhaps not read yet, oldest first; then what could not be sent so far. */
  let sent: EventRecord[] = []
  let waiting: EventRecord[] = []

  const push = (): void => {
    if (sent.length > 0 && outstandingBytes(ours) === 0) sent = []
    while (waiting.length > 0 && sendSmall(ours, waiting[0].bytes) > 0) sent.push(waiting.shift() as EventRecord)
    watcher.update({ readable: true, writable: waiting.length > 0 })
  }

  const watcher = watch(ours, { readable: true }, readable => {
    if (readable && recvSmall(ours, scratch) === 0) hungUp()
    else push()
  })

  /** Takes all unread packets out of the program's end and returns how many there were; 0 if it cannot be reached. */
  const drain = (): number => {
    const process = holder()
    const number = process ? findFd(process.pid, target) : undefined
    const end = theirsOpen ? theirs : process && typeof number === 'number' ? pidfdGetfd(process, number) : -1
    if (end < 0) return 0
    let count = 0
    while (recvSmall(end, scratch) > 0) count++
    if (end !== theirs) close(end)
    return count
  }

  const unread = (): EventRecord[] => {
    if (sent.length === 0 || outstandingBytes(ours) === 0) return []
    const count = drain()
    return count === 0 ? [] : sent.slice(-count)
  }

  return {
    theirs,
    target,
    passed() {
      if (theirsOpen) close(theirs)
      theirsOpen = false
    },
    post(event) {
      if (closed) return
      waiting.push(event)
      push()
    },
    withdraw(element: Affiliation) {
      if (closed) return 0
      const candidates = [...unread(), ...waiting]
      sent = []
      waiting = candidates.filter(event => event.element !== element)
      push()
      return candidates.length - waiting.length
    },
    end() {
      if (!closed) shutdown(ours, 'write')
    },
    close() {
      if (closed) return
      closed = true
      watcher.stop()
      close(ours)
      this.passed()
    },
  }
}
