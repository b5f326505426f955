/*
 * Memory regions of files, null regions, and implicit regions (the whole address space).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type Bytes,
  closeContext,
  createLocalSpace,
  type FileMemory,
  invoke,
  invokeNow,
  resolve,
} from '../../src/core/index.ts'
import { Classes } from '../../src/spec/classes.ts'
import { AccessFlags, MrKind } from '../../src/spec/enums.ts'
import { CallError } from '../../src/spec/errno.ts'
import type { In } from '../../src/spec/schema/schema.ts'
import { halves } from '../host/copy-arguments.ts'
import { errnoOf, openTestDevice } from './fixture.ts'
import { fetchAdd, readSpace, writeSpace } from './memory/address-space.ts'

const { mr: Mr, pd: Pd } = Classes
const { FILE, NULL, IMPLICIT, DEVICE } = MrKind.values
const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE } = AccessFlags.values

const setUp = () => {
  const setup = openTestDevice()
  const file = new Uint8Array(8192)
  const files = { open: 0, closed: 0 }
  const caller = {
    ...setup.caller,
    openFile(fd: number): FileMemory {
      if (fd !== 5) throw new CallError('EBADF', `the caller has no descriptor ${fd}`)
      const space = createLocalSpace()
      // An address of the region is an offset in the file. `space` has the file at `fileStart`, whose upper half is 1.
      const fileStart = space.add(file)
      const lowerHalfOf = (offset: number): number => fileStart + offset - 2 ** 32
      files.open++
      return {
        space: {
          ...space,
          check: (hi, lo, length, needsWrite) =>
            hi === 0 && lo + length <= 8192 && space.check(1, lowerHalfOf(lo), length, needsWrite),
          read: (_hi, lo, to, offset, chunk, stride, total) =>
            space.read(1, lowerHalfOf(lo), to, offset, chunk, stride, total),
        },
        close: () => files.closed++,
      }
    },
  }
  const pd = invokeNow(setup.context, Pd, 'create', 0, {}, caller).object!
  const pdId = setup.context.handles.slots[pd]!.id
  const create = (options: Partial<In<typeof Mr.methods.create>>) =>
    invokeNow(
      setup.context,
      Mr,
      'create',
      0,
      { pd, start: 0n, length: 4096n, iova: 0n, access: LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ, ...options },
      caller,
    )
  const destroy = (handle: number) => invokeNow(setup.context, Mr, 'destroy', handle, {}, caller)
  const query = (handle: number) => invokeNow(setup.context, Mr, 'query', handle, {}, caller).out
  const modify = (handle: number, args: In<typeof Mr.methods.modify>) =>
    invokeNow(setup.context, Mr, 'modify', handle, args, caller)
  const spaceOf = (row: number) => setup.device.memory.spaces[setup.device.memory.space[row]]!
  /** The row that permits a peer's READ; -1 if there is none. */
  const find = (key: number, hi: number, lo: number, length: number) =>
    resolve(setup.device.memory, pdId, key, hi, lo, length, REMOTE_READ, 0)
  return { ...setup, caller, file, files, create, destroy, query, modify, spaceOf, find }
}

/** A buffer in which every byte is 9. */
const filledBuffer = (size: number): Bytes => {
  const bytes = new Uint8Array(size).fill(9)
  return { address: 0, bytes, view: new DataView(bytes.buffer) }
}

test('what Linux checks before the descriptor is refused with EINVAL, whatever the descriptor is', () => {
  const { create } = setUp()
  const missing = { kind: FILE, file: 0xffff_ffff }
  const errno = (options: Parameters<typeof create>[0]) => errnoOf(() => create({ ...missing, ...options }))
  assert.equal(errno({}), 'EBADF')
  assert.equal(errno({ length: 0n }), 'EBADF')
  assert.equal(errno({ start: 1n }), 'EINVAL')
  assert.equal(errno({ access: REMOTE_WRITE }), 'EINVAL')
  assert.equal(errno({ start: 2n ** 64n - 4096n, length: 8192n }), 'EINVAL')
})

test('a registration has at most 2^32 - 1 pages, which Linux counts before it looks at them', () => {
  const { create } = setUp()
  const pages = 2n ** 32n
  assert.equal(
    errnoOf(() => create({ start: 0n, length: pages * 4096n })),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => create({ start: 0n, length: (pages - 1n) * 4096n })),
    'EFAULT',
  )
})

test('a region of a file has the file’s pages, and the file is closed with the region', () => {
  const { file, files, create, destroy, query, spaceOf, find } = setUp()
  file.fill(3, 4096)
  const { object, out } = create({ kind: FILE, file: 5, start: 4096n, iova: 0x7_0000_1000n })
  assert.equal(query(object!).kind, FILE)
  const row = find(out.rkey, 7, 0x1000, 4096)
  assert.ok(row >= 0)
  assert.equal(find(out.rkey, 7, 0x1001, 4096), -1)
  const to = filledBuffer(16)
  assert.equal(readSpace(spaceOf(row), 4096, to, { total: 16 }), 0)
  assert.deepEqual(to.bytes, new Uint8Array(16).fill(3))
  assert.deepEqual(files, { open: 1, closed: 0 })
  destroy(object!)
  assert.deepEqual(files, { open: 1, closed: 1 })
})

test('the file of a refused registration is closed', () => {
  const { device, files, create } = setUp()
  assert.equal(
    errnoOf(() => create({ kind: FILE, file: 5, length: 16384n })),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => create({ kind: FILE, file: 5, start: 1n })),
    'EINVAL',
  )
  // The second is refused before the file is opened.
  assert.deepEqual(files, { open: 1, closed: 1 })
  assert.equal(device.memory.liveKeys, 0)
})

test('only a region of kind FILE has a file, which the caller must have open', () => {
  const { context, device, create, caller } = setUp()
  assert.equal(
    errnoOf(() => create({ kind: FILE, file: 6 })),
    'EBADF',
  )
  assert.throws(() => create({ kind: FILE }), /attribute file is missing/)
  assert.throws(() => create({ file: 5 }), /attribute file belongs to regions of kind FILE/)
  const args = { pd: 0, start: 0n, length: 4096n, iova: 0n, access: 0, kind: FILE, file: 5 }
  const { openFile: _, ...callerWithoutFiles } = caller
  assert.throws(() => invokeNow(context, Mr, 'create', 0, args, callerWithoutFiles), { code: 'EOPNOTSUPP' })
  assert.equal(device.memory.liveKeys, 0)
})

test('a null region discards writes and reads as zero', () => {
  const { create, destroy, query, spaceOf, find } = setUp()
  const { object, out } = create({ kind: NULL, iova: 0x5000n, length: 100n })
  assert.deepEqual(
    { ...query(object!), lkey: 0, rkey: 0 },
    { lkey: 0, rkey: 0, length: 100n, iova: 0x5000n, kind: NULL },
  )
  const row = find(out.rkey, 0, 0x5000, 100)
  assert.equal(find(out.rkey, 0, 0x5000, 101), -1)
  const [from, to] = [filledBuffer(8), filledBuffer(20)]
  assert.equal(writeSpace(spaceOf(row), 0x5000, from, { total: 8 }), 0)
  assert.equal(readSpace(spaceOf(row), 0x5000, to, { at: 1, chunk: 4, stride: 10, total: 8 }), 0)
  assert.deepEqual([...to.bytes], [9, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 9, 9, 9, 9, 9])
  assert.equal(fetchAdd(spaceOf(row), 0x5000, 1n), 0n)
  destroy(object!)
})

test('an implicit region gives access to memory that is mapped after the registration', () => {
  const { caller, create, query, spaceOf, find } = setUp()
  const { object, out } = create({ kind: IMPLICIT, start: 77n, length: 1n, iova: 3n })
  assert.equal(query(object!).kind, IMPLICIT)
  const buffer = new Uint8Array(64).fill(4)
  const address = caller.memory.add(buffer)
  const row = find(out.rkey, ...halves(address), 64)
  assert.ok(row >= 0)
  const to = filledBuffer(64)
  assert.equal(readSpace(spaceOf(row), address, to, { total: 64 }), 0)
  assert.deepEqual(to.bytes, buffer)
  assert.notEqual(readSpace(spaceOf(row), address + 4096, to, { total: 64 }), 0)
})

test('regions of kind NULL and IMPLICIT can get other rights, but no other translation', () => {
  const { create, modify, query, find } = setUp()
  for (const kind of [NULL, IMPLICIT]) {
    const { object, out } = create({ kind })
    assert.throws(() => modify(object!, { translation: { start: 0n, length: 1n, iova: 0n } }), {
      code: 'EINVAL',
      message: /only regions of kind MEMORY can get another translation/,
    })
    modify(object!, { access: LOCAL_WRITE })
    assert.equal(query(object!).kind, kind)
    assert.equal(find(out.rkey, 0, 0x10, 1), -1)
  }
})

test('a region of kind DEVICE needs device memory', () => {
  const { create } = setUp()
  assert.equal(
    errnoOf(() => create({ kind: DEVICE })),
    'EINVAL',
  )
})

/**
 * A caller whose memory prepares the check of pages; `calls` records what is asked of the memory, and `whilePreparing`
 * is called when a preparation starts.
 */
const preparingCaller = (caller: ReturnType<typeof openTestDevice>['caller'], whilePreparing = () => {}) => {
  const { memory } = caller
  const calls: string[] = []
  const { check } = memory
  const prepared = Object.assign(memory, {
    async prepareCheck(this: unknown): Promise<void> {
      assert.equal(this, memory)
      whilePreparing()
      await new Promise(setImmediate)
      calls.push('prepared')
    },
    check(...args: Parameters<typeof check>): boolean {
      calls.push('checked')
      return check(...args)
    },
  })
  return { calls, caller: { ...caller, memory: prepared } }
}

test('a registration waits until the address space has prepared the check', async () => {
  const setup = openTestDevice()
  const { context } = setup
  const start = BigInt(setup.caller.memory.add(new Uint8Array(4096)))
  const { calls, caller } = preparingCaller(setup.caller)
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object!
  const args = { pd, start, length: 4096n, iova: start, access: LOCAL_WRITE }
  const result = invoke(context, Mr, 'create', 0, args, caller)
  assert.ok(result instanceof Promise)
  assert.notEqual((await result).out.lkey, 0)
  assert.deepEqual(calls, ['prepared', 'checked'])
})

test('a re-registration with pages to check waits for the preparation, and its region cannot be destroyed meanwhile', async () => {
  const setup = openTestDevice()
  const { context } = setup
  const [first, second] = [0, 1].map(() => BigInt(setup.caller.memory.add(new Uint8Array(4096))))
  const pd = invokeNow(context, Pd, 'create', 0, {}, setup.caller).object!
  const args = { pd, start: first!, length: 4096n, iova: first!, access: 0 }
  const { object } = invokeNow(context, Mr, 'create', 0, args, setup.caller)
  const { calls, caller } = preparingCaller(setup.caller)
  const modify = (changes: In<typeof Mr.methods.modify>) => invoke(context, Mr, 'modify', object!, changes, caller)
  assert.ok(!(modify({ access: REMOTE_READ }) instanceof Promise))
  assert.deepEqual(calls, [])
  for (const changes of [{ access: LOCAL_WRITE }, { translation: { start: second!, length: 4096n, iova: second! } }]) {
    const result = modify(changes)
    assert.ok(result instanceof Promise)
    assert.equal(
      errnoOf(() => invokeNow(context, Mr, 'destroy', object!, {}, caller)),
      'EBUSY',
    )
    await result
    assert.deepEqual(calls.splice(0), ['prepared', 'checked'])
  }
  assert.equal(invokeNow(context, Mr, 'query', object!, {}, caller).out.iova, second)
})

test('a re-registration fails with EIO if its context is closed meanwhile', async () => {
  const setup = openTestDevice()
  const { context } = setup
  const start = BigInt(setup.caller.memory.add(new Uint8Array(4096)))
  const pd = invokeNow(context, Pd, 'create', 0, {}, setup.caller).object!
  const args = { pd, start, length: 4096n, iova: start, access: 0 }
  const { object } = invokeNow(context, Mr, 'create', 0, args, setup.caller)
  const { caller } = preparingCaller(setup.caller, () => closeContext(context))
  await assert.rejects(async () => invoke(context, Mr, 'modify', object!, { access: LOCAL_WRITE }, caller), {
    code: 'EIO',
  })
  assert.equal(setup.device.memory.liveKeys, 0)
})
