/*
 * Movers inherit only the descriptors in their options, also on kernels without close_range(2). Closers make the last
 * closes of descriptors.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { watch } from '../../../src/host/event-loop/poll.ts'
import { nativeLibraryPath } from '../../../src/host/library.ts'
import { MAX_WAIT } from '../../../src/host/memory/budget.ts'
import { mapArena } from '../../../src/host/memory/mapping.ts'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import { closeElsewhere, createMover } from '../../../src/host/memory/mover.ts'
import { libcFunctions } from '../../../src/host/native.ts'
import { close, recvBytes, socketPair } from '../../../src/host/net/sockets.ts'
import { halves } from '../copy-arguments.ts'
import { fill, processorTime } from '../processor-time.ts'

const skip = nativeLibraryPath() === undefined && 'the native library was not built'
const sys = libcFunctions({
  prctl: 'int prctl(int option, uint64_t a, int64_t b, uint64_t c, uint64_t d)',
  dup: 'int dup(int fd)',
})

/** A user with closers of its own. */
const USER = 54321

/** Makes close_range(2) fail with ENOSYS in this thread and its children, with a filter of seccomp(2). */
const disableCloseRange = (): void => {
  const SYS_CLOSE_RANGE = 436
  const ENOSYS = 38
  const BPF = { LD_W_ABS: 0x20, JMP_JEQ_K: 0x15, RET_K: 0x06 } as const
  const SECCOMP_RET = { ERRNO: 0x0005_0000, ALLOW: 0x7fff_0000 } as const
  const arena = mapArena(4096)
  const { view, address } = arena
  /** Loads `nr`, at byte 0 of struct seccomp_data, and returns ENOSYS if it is close_range. */
  const program: [code: number, jumpIfFalse: number, value: number][] = [
    [BPF.LD_W_ABS, 0, 0],
    [BPF.JMP_JEQ_K, 1, SYS_CLOSE_RANGE],
    [BPF.RET_K, 0, SECCOMP_RET.ERRNO | ENOSYS],
    [BPF.RET_K, 0, SECCOMP_RET.ALLOW],
  ]
  // struct sock_fprog {u16 length, pointer}, then struct sock_filter {u16 code, u8 jt, u8 jf, u32 k} from byte 16 on
  for (const [i, [code, jumpIfFalse, value]] of program.entries()) {
    view.setUint16(16 + 8 * i, code, true)
    view.setUint8(16 + 8 * i + 3, jumpIfFalse)
    view.setUint32(16 + 8 * i + 4, value, true)
  }
  view.setUint16(0, program.length, true)
  view.setBigUint64(8, BigInt(address + 16), true)
  const [PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER] = [38, 22, 2]
  assert.equal(sys().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0)
  assert.equal(sys().prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address, 0, 0), 0)
}

const checkMover = (): void => {
  const mover = createMover()
  assert.ok(mover !== undefined)
  const arena = mapArena(4096)
  const [ours, theirs] = socketPair()
  arena.bytes[0] = 7
  // The first call starts the mover's process while our end of the socket is open. It copies the first byte to `to`.
  const to = 8
  const [isWrite, noFd] = [false, -1]
  const [chunk, stride, total] = [1, 1, 1]
  const from = halves(arena.address)
  assert.equal(mover.move(isWrite, process.pid, noFd, ...from, arena, to, chunk, stride, total, MAX_WAIT), total)
  assert.equal(arena.bytes[to], 7)
  close(ours)
  assert.equal(recvBytes(theirs, new Uint8Array(1)), 0, 'the end of the stream: no other process has the socket')
  close(theirs)
  mover.close()
}

test('a mover inherits none of our descriptors', { skip }, checkMover)

/** Resolves when all who had the peer of a socket have closed it. */
const untilClosed = (fd: number): Promise<void> =>
  new Promise(resolve => {
    const watcher = watch(fd, { readable: true }, () => {
      watcher.stop()
      resolve()
    })
  })

test('the last close of a large file takes no time of this process', { skip }, async () => {
  const filled = (): number => {
    const fd = createMemfd('large', 2 ** 30)
    fill(fd)
    return fd
  }
  const elsewhere = async (...fds: readonly number[]): Promise<void> => {
    const [ours, theirs] = socketPair()
    for (const fd of [...fds, theirs]) {
      closeElsewhere(fd, USER)
      await setImmediate()
    }
    await untilClosed(ours)
    close(ours)
  }
  await elsewhere()
  const [here, there] = [filled(), filled()]
  const direct = await processorTime(() => close(here))
  const byCloser = await processorTime(() => elsewhere(there))
  assert.ok(byCloser < direct / 2, `${byCloser} and ${direct} µs`)
})

test('a user with 10,000 closes has few closers', { skip }, async () => {
  const [ours, theirs] = socketPair()
  /** Number of processes that this machine has started. */
  const started = (): number => Number(/^processes (\d+)/m.exec(readFileSync('/proc/stat', 'latin1'))?.[1])
  const before = started()
  for (let turns = 0; turns < 10_000; turns++) {
    closeElsewhere(sys().dup(theirs), USER)
    await setImmediate()
  }
  closeElsewhere(theirs, USER)
  await untilClosed(ours)
  close(ours)
  const more = started() - before
  assert.ok(more < 5000, `${more} processes`)
})

test('a mover inherits none of our descriptors without close_range(2)', { skip }, () => {
  // The filter stays until this process ends, so this test must be the last.
  disableCloseRange()
  checkMover()
})
