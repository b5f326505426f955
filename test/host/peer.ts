/*
 * The other process of the tests in this folder, which makes calls on request. startPeer (peer-control.ts) starts it.
 */

import { type Arena, mapArena } from '../../src/host/memory/mapping.ts'
import { createMemfd, fileIdentity } from '../../src/host/memory/memfd.ts'
import { libcFunctions } from '../../src/host/native.ts'
import { close, connect, type Received, recvGuarded, send, socketPair } from '../../src/host/net/sockets.ts'

/** The calls that a peer accepts, and its answers. */
export interface PeerCalls {
  /** Maps an arena whose byte i is i % 251. `protection` (PROT_…) is that of the page at `protect`. */
  arena: { request: { bytes: number; protect?: number; protection?: number }; answer: { address: number } }
  /** Reads bytes of the arena. */
  read: { request: { offset: number; length: number }; answer: { bytes: number[] } }
  /** Maps untouched pages without backing memory, before a page that permits no access. */
  fresh: { request: { bytes: number }; answer: { address: number } }
  /** Writes one byte of the fresh pages. */
  touch: { request: { offset: number }; answer: object }
  /** Frees all fresh pages (MADV_DONTNEED), which are then untouched again. */
  drop: { request: object; answer: object }
  /** Creates a memory file with the text and keeps it open. */
  file: { request: { text: string }; answer: { fd: number; ino: number } }
  /** Connects, and sends a message, with the descriptor of a memory file if `withFile`. */
  sendMessage: { request: { path: string; text: string; withFile: boolean }; answer: { sent: number; ino: number } }
  /** Receives a message with a descriptor by `recvGuarded` when the process, no longer root, may start no processes. */
  receiveWithoutProcesses: { request: object; answer: Received }
}

const sys = libcFunctions({
  mprotect: 'int mprotect(int64_t address, uint64_t length, int protection)',
  madvise: 'int madvise(int64_t address, uint64_t length, int advice)',
  pwrite: 'int64_t pwrite(int fd, const char *bytes, uint64_t length, int64_t offset)',
  prlimit: 'int prlimit(int pid, int resource, int64_t newLimit, int64_t oldLimit)',
})

let arena: Arena | undefined
let fresh: Arena | undefined
const PAGE = 4096
const PROT_NONE = 0
const PROT_READ = 1
const MADV_DONTNEED = 4
const RLIMIT_NPROC = 6
const NOBODY = 65534

const handlers: { [K in keyof PeerCalls]: (request: PeerCalls[K]['request']) => PeerCalls[K]['answer'] } = {
  arena({ bytes, protect, protection = PROT_READ }) {
    arena = mapArena(bytes)
    for (let i = 0; i < arena.length; i++) arena.bytes[i] = i % 251
    if (protect !== undefined && sys().mprotect(arena.address + protect, PAGE, protection) !== 0)
      throw new Error('mprotect')
    return { address: arena.address }
  },
  read({ offset, length }) {
    return { bytes: arena ? [...arena.bytes.subarray(offset, offset + length)] : [] }
  },
  fresh({ bytes }) {
    fresh = mapArena(bytes + PAGE)
    if (sys().mprotect(fresh.address + bytes, PAGE, PROT_NONE) !== 0) throw new Error('mprotect')
    return { address: fresh.address }
  },
  touch({ offset }) {
    if (fresh) fresh.bytes[offset] = 1
    return {}
  },
  drop() {
    if (fresh) sys().madvise(fresh.address, fresh.length, MADV_DONTNEED)
    return {}
  },
  file({ text }) {
    const fd = createMemfd('peer', text.length)
    sys().pwrite(fd, text, text.length, 0)
    return { fd, ino: fileIdentity(fd).ino }
  },
  sendMessage({ path, text, withFile }) {
    const fd = connect(path)
    const file = createMemfd('said', text.length)
    sys().pwrite(file, text, text.length, 0)
    const { ino } = fileIdentity(file)
    const sent = send(fd, Buffer.from(text), withFile ? [file] : [])
    close(file)
    // The connection stays open until this process exits.
    return { sent, ino }
  },
  receiveWithoutProcesses() {
    const [sender, receiver] = socketPair()
    const buffer = new Uint8Array(64)
    const file = createMemfd('passed', PAGE)
    send(sender, Buffer.from('first'), [file])
    // Loads the native library, which NOBODY might not be able to read.
    recvGuarded(receiver, buffer)
    send(sender, Buffer.from('second'), [file])
    // The limit does not apply to root.
    if (process.getuid?.() === 0) process.setuid?.(NOBODY)
    const zeroLimits = mapArena(16).address // struct rlimit
    if (sys().prlimit(0, RLIMIT_NPROC, zeroLimits, 0) !== 0) throw new Error('prlimit')
    return recvGuarded(receiver, buffer)
  },
}

process.on('message', ({ call, request }: { call: keyof PeerCalls; request: never }) => {
  process.send?.(handlers[call](request))
})
