/*
 * Programs' memory files as address spaces.
 */
import assert from 'node:assert/strict'
import { closeSync, constants, ftruncateSync, openSync, readdirSync, readSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import type { Bytes } from '../../../src/core/index.ts'
import { FileMemories } from '../../../src/daemon/memory/file-space.ts'
import { addSeals, createMemfd, SEAL_FUTURE_WRITE, SEAL_WRITE } from '../../../src/host/memory/memfd.ts'
import { closeProcess, openProcess, type ProcessHandle } from '../../../src/host/memory/process.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { ownAccount } from '../../core/accounts.ts'
import { compareSwap, fetchAdd, readSpace, writeSpace } from '../../core/memory/address-space.ts'
import { takeDescriptors } from '../../soft-limits.ts'
import { until } from '../../tools.ts'

const account = ownAccount()

const GUEST_UID = 1234

/** Runs `body` twice: as a program of the daemon's user, and as a guest's program, whose files a mover accesses. */
const withFile = async (
  size: number,
  body: (fd: number, self: ProcessHandle) => void | Promise<void>,
): Promise<void> => {
  for (const guestUid of [undefined, GUEST_UID]) {
    const self = openProcess(process.pid, { guestUid }) as ProcessHandle
    const fd = createMemfd('userdma-test', size)
    try {
      await body(fd, self)
    } finally {
      closeSync(fd)
      closeProcess(self)
    }
  }
}
const bufferOf = (...bytes: number[]): Bytes => {
  const array = Uint8Array.from(bytes)
  return { address: 0, bytes: array, view: new DataView(array.buffer) }
}

test('strided copies to and from the file work, and the program sees the written bytes', async () => {
  await withFile(8192, (fd, self) => {
    const { space, close } = new FileMemories(self, account).open(fd)
    assert.equal(writeSpace(space, 4000, bufferOf(1, 2, 0, 3, 4, 0), { chunk: 2, stride: 3, total: 4 }), 0)
    const seen = Buffer.alloc(4)
    readSync(fd, seen, 0, 4, 4000)
    assert.deepEqual([...seen], [1, 2, 3, 4])
    writeSync(fd, Buffer.of(7, 8), 0, 2, 8190)
    const to = bufferOf(0, 0, 0)
    assert.equal(readSpace(space, 8190, to, { at: 1, total: 2 }), 0)
    assert.deepEqual([...to.bytes], [0, 7, 8])
    // The second call has no effect.
    close()
    close()
    assert.equal(readSpace(space, 0, to, { total: 1 }), Errno.EFAULT)
  })
})

test('a descriptor that cannot be duplicated is refused with EMFILE, ENFILE or EBADF', () => {
  for (const code of ['EMFILE', 'ENFILE', 'EBADF'] as const) {
    const handle = { guest: { descriptor: () => -Errno[code] } } as unknown as ProcessHandle
    assert.throws(
      () => new FileMemories(handle, account).open(3),
      (error: unknown) => error instanceof CallError && error.code === code,
    )
  }
})

test('accesses beyond the end of a shortened file fault, and writes do not extend the file', async () => {
  await withFile(8192, (fd, self) => {
    const { space, close } = new FileMemories(self, account).open(fd)
    assert.ok(space.check(0, 4096, 4096, true))
    assert.ok(!space.check(0, 4097, 4096, true))
    ftruncateSync(fd, 4096)
    const local = bufferOf(5, 5)
    assert.equal(readSpace(space, 4095, local, { total: 2 }), Errno.EFAULT)
    assert.equal(writeSpace(space, 4095, local, { total: 2 }), Errno.EFAULT)
    assert.equal(writeSpace(space, 4094, local, { total: 2 }), 0)
    assert.equal(fetchAdd(space, 4092, 1n), Errno.EFAULT)
    close()
  })
})

test('atomics carry into the high half, and compare all 64 bits', async () => {
  await withFile(64, (fd, self) => {
    const { space, close } = new FileMemories(self, account).open(fd)
    /** Offset of the atomic word. */
    const at = 8
    const word = () => {
      const bytes = Buffer.alloc(8)
      readSync(fd, bytes, 0, 8, at)
      return bytes.readBigUInt64LE()
    }
    assert.equal(fetchAdd(space, at, 0x1_ffff_ffffn), 0n)
    assert.equal(fetchAdd(space, at, 2n), 0x1_ffff_ffffn)
    assert.equal(word(), 0x2_0000_0001n)
    assert.equal(compareSwap(space, at, 0x2_0000_0002n, 0x9_0000_0009n), 0x2_0000_0001n)
    assert.equal(word(), 0x2_0000_0001n)
    assert.equal(compareSwap(space, at, 0x2_0000_0001n, 0x9_0000_0008n), 0x2_0000_0001n)
    assert.equal(word(), 0x9_0000_0008n)
    close()
  })
})

test('only memory files are accepted, without O_APPEND; the file of a read-only descriptor is not writable', async () => {
  await withFile(4096, (fd, self) => {
    /** 'ok', or the error's code. */
    const openResult = (descriptor: number): string => {
      try {
        new FileMemories(self, account).open(descriptor).close()
        return 'ok'
      } catch (error) {
        assert.ok(error instanceof CallError)
        return error.code
      }
    }
    const other = openSync('/dev/null', 'r+')
    assert.equal(openResult(other), 'EINVAL')
    closeSync(other)
    assert.equal(openResult(1_000_000), 'EBADF', 'no such descriptor')
    const appending = openSync(`/proc/self/fd/${fd}`, constants.O_RDWR | constants.O_APPEND)
    assert.equal(openResult(appending), 'EINVAL')
    closeSync(appending)
    const readOnly = openSync(`/proc/self/fd/${fd}`, 'r')
    const { space, close } = new FileMemories(self, account).open(readOnly)
    assert.ok(space.check(0, 0, 4096, false))
    assert.ok(!space.check(0, 0, 4096, true))
    assert.equal(writeSpace(space, 0, bufferOf(1), { total: 1 }), Errno.EFAULT)
    close()
    closeSync(readOnly)
  })
})

test('a file that is sealed against writes is not writable, also for regions after others', async () => {
  for (const seal of [SEAL_FUTURE_WRITE, SEAL_WRITE])
    await withFile(4096, (fd, self) => {
      const files = new FileMemories(self, account)
      const before = files.open(fd)
      assert.ok(before.space.check(0, 0, 4096, true))
      addSeals(fd, seal)
      const { space, close } = files.open(fd)
      assert.ok(space.check(0, 0, 4096, false))
      assert.ok(!space.check(0, 0, 4096, true))
      close()
      before.close()
    })
})

test('all regions of a file use one descriptor, and the last one to end closes it', async () => {
  await withFile(4096, async (fd, self) => {
    const files = new FileMemories(self, account)
    const descriptors = (): number => readdirSync('/proc/self/fd').length
    // a mover has a descriptor of its own
    files.open(fd).close()
    const before = descriptors()
    const regions = Array.from({ length: 500 }, () => files.open(fd))
    assert.equal(descriptors(), before + 1)
    const readOnly = openSync(`/proc/self/fd/${fd}`, 'r')
    const other = files.open(readOnly)
    assert.ok(!other.space.check(0, 0, 4096, true))
    assert.equal(descriptors(), before + 3)
    other.close()
    closeSync(readOnly)
    for (const region of regions.slice(1)) region.close()
    regions[1]!.close()
    assert.equal(readSpace(regions[0]!.space, 0, bufferOf(0), { total: 1 }), 0)
    regions[0]!.close()
    // Of a guest another process closes it, perhaps after a look.
    await until(() => descriptors() <= before)
    assert.equal(descriptors(), before)
    assert.equal(readSpace(regions[0]!.space, 0, bufferOf(0), { total: 1 }), Errno.EFAULT)
  })
})

test('EMFILE if the daemon has no descriptors left', async () => {
  await withFile(4096, (fd, self) => {
    const taken = takeDescriptors()
    try {
      for (const left of [0, 1]) {
        taken.free(left)
        assert.throws(
          () => new FileMemories(self, account).open(fd),
          (error: unknown) => error instanceof CallError && error.code === 'EMFILE',
          `${left} left`,
        )
      }
      taken.free(10)
      new FileMemories(self, account).open(fd).close()
    } finally {
      taken.release()
    }
  })
})
