/*
 * Hostile clients of a ctx device do not affect two honest clients, and leave nothing. The attacks are random, from a
 * seed.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  bufferMemory,
  type Caller,
  type Context,
  closeContext,
  closeDescriptor,
  createCore,
  dispatch,
  type FdObject,
  type MappedChunk,
  type MappedMemory,
  openContext,
  opsIoctl,
  opsMap,
  opsWrite,
  stat,
} from '../../../src/core/index.ts'
import { createCtxDevice } from '../../../src/drivers/ctx/device.ts'
import { CtxAssign, CtxInterface, CtxIoctl, CtxSend } from '../../../src/spec/drivers/ctx.ts'
import { CallError, errnoName } from '../../../src/spec/errno.ts'
import type { Answer } from '../../../src/uapi/call.ts'
import { decodeIoctl, ioctlRequest } from '../../../src/uapi/index.ts'
import { encodeCall } from '../../../src/uapi/object/client.ts'
import { encodeRecords } from '../../../src/uapi/scalar.ts'
import { mutate } from '../../random/fuzz/mutate.ts'
import { createRandomSource, type RandomSource } from '../../random/model/random.ts'
import { correctLengths, splits } from '../../random/objects/hostile/hostile-client.ts'
import { type ClientState, plausibleCall } from '../../random/objects/plausible.ts'
import { flatCaller, openClient, receive } from './client.ts'

const ROUNDS = 12
const CALLS = 250

/** Memory that refuses allocations above 512 KiB with ENOMEM. `live` has the chunks that are not freed. */
const limitedMemory = (): MappedMemory & { readonly live: Set<MappedChunk> } => {
  const plain = bufferMemory()
  const live = new Set<MappedChunk>()
  return {
    live,
    allocate(bytes) {
      if (bytes > 1 << 19) throw new CallError('ENOMEM', `the test does not allocate ${bytes} bytes`)
      const chunk = plain.allocate(bytes)
      live.add(chunk)
      return chunk
    },
    free: chunk => assert.ok(live.delete(chunk)),
  }
}

interface Attacker {
  readonly context: Context
  readonly caller: Caller & { readonly bytes: Uint8Array }
  readonly memory: ReturnType<typeof limitedMemory>
  readonly fds: Map<number, FdObject>
}

const clientStateOf = ({ context, fds }: Attacker, random: RandomSource): ClientState => ({
  random,
  classes: [...context.device.sharedTable.byName.values()]
    .map(table => table.class)
    .filter(cls => cls.name !== 'interface'),
  handles: new Map(
    context.handles.slots.flatMap(object => (object === undefined ? [] : [[object.handle, object.class.name]])),
  ),
  fds: new Map([...fds].flatMap(([fd, object]) => (object.isClosed ? [] : [[fd, object.class.name]]))),
  address: 0n,
  gid: new Uint8Array(16),
})

/** Sends a message of the object dialect, mutated with probability 1/2. Returns its errno, or 'ok'. */
const sendMessage = (attacker: Attacker, random: RandomSource): string => {
  const { context, caller, fds } = attacker
  const call = plausibleCall(clientStateOf(attacker, random))
  const bytes = encodeCall(call)
  const changed = random.hits(0.5) ? bytes : correctLengths('object', mutate(bytes, bytes, splits.object, random))
  caller.bytes.set(changed.subarray(0, 8192))
  const target = call.fd === undefined ? undefined : fds.get(call.fd)?.handle
  const answer = dispatch(context, decodeIoctl, [ioctlRequest(call.method.call), 0n], caller, target) as Answer
  for (const { descriptor } of answer.installs) {
    const { descriptors } = context.device.core
    fds.set(descriptor.object, descriptors.get(descriptor.object) as FdObject)
  }
  assert.ok(answer.ret >= 0 || /\w+ \w+/.test(String(answer.reason)), 'a refusal without a message')
  return answer.ret < 0 ? errnoName(-answer.ret) : 'ok'
}

/** A random call on one of the client's descriptors: ioctl, write or mmap. Returns its errno, 'ok', or 'none'. */
const callDescriptor = ({ caller, fds }: Attacker, random: RandomSource): string => {
  if (fds.size === 0) return 'none'
  const fd = random.pick([...fds.values()])
  const number = () => (random.hits(0.8) ? random.int(4) : random.u32())
  caller.bytes.set(
    random.hits(0.5)
      ? encodeRecords(CtxAssign, [
          {
            eagerCount: 1 << random.int(4),
            eagerBytes: 64,
            expectedCount: number(),
            expectedBytes: 64,
            jobKey: 0,
            handle: 0,
          },
        ])
      : encodeRecords(CtxSend, [
          { destination: number(), flags: random.int(2), slot: number(), offset: number(), tag: 1n },
        ]),
  )
  const address = random.hits(0.95) ? 0n : BigInt(random.u32())
  try {
    const choice = random.int(4)
    if (choice < 2)
      opsIoctl(fd, caller, random.hits(0.9) ? random.pick(Object.values(CtxIoctl)) : random.u32(), address)
    else if (choice === 2) opsWrite(fd, caller, address, random.pick([0, 1, 23, 24, 60, 88, 100, 70_000, 2 ** 31]))
    else {
      const offset = random.pick([0, 0, 0, 1, 4096, 2 ** 40, -4096, Number.NaN])
      const length = random.pick([0, 1, 4096, 2 ** 40])
      const isWritable = true
      opsMap(fd, caller, offset, length, isWritable)
    }
    return 'ok'
  } catch (error) {
    if (!(error instanceof CallError)) throw error
    assert.match(error.message, /\w+ \w+/)
    return error.code
  }
}

/** Writes a random count into one of the first four words of a context's memory. */
const corruptQueueWords = ({ memory }: Attacker, random: RandomSource): string => {
  if (memory.live.size > 0) {
    const { words, at } = random.pick([...memory.live])
    words[(at >> 2) + random.int(4)] = random.hits(0.5) ? random.int(8) : random.u32() | 0
  }
  return 'none'
}

const run = (seed: number): Record<string, number> => {
  const random = createRandomSource(seed)
  const core = createCore()
  const device = createCtxDevice(core, 'ctx0')
  const createHonest = () => {
    const client = openClient(core, 'ctx0', CtxInterface.V2)
    const inputs = { eagerCount: 4, eagerBytes: 64, expectedCount: 2, expectedBytes: 64, jobKey: 77, handle: 0 }
    client.ioctl(CtxIoctl.ASSIGN, encodeRecords(CtxAssign, [inputs]))
    return { ...client, mapped: client.map() }
  }
  const [sender, receiver] = [createHonest(), createHonest()]
  const before = JSON.stringify(stat(core).devices)
  const outcomes: Record<string, number> = {}
  for (let round = 0; round < ROUNDS; round++) {
    const memory = limitedMemory()
    const context = openContext(device as never, { isOpened: true, mapped: memory }) as Context
    const fds = new Map<number, FdObject>()
    const caller = { ...flatCaller(), descriptor: (fd: number) => (fds.has(fd) ? fd : undefined) }
    const attacker: Attacker = { context, caller, memory, fds }
    for (let call = 0; call < CALLS; call++) {
      const act = random.pick([sendMessage, sendMessage, callDescriptor, callDescriptor, corruptQueueWords])
      const outcome = act(attacker, random)
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
      if (fds.size > 0 && random.hits(0.05)) {
        const fd = random.pick([...fds.keys()])
        fds.delete(fd)
        closeDescriptor(core, fd)
      }
    }
    closeContext(context)
    assert.deepEqual(
      [JSON.stringify(stat(core).devices), memory.live.size, stat(core).faults],
      [before, 0, 0],
      `round ${round}`,
    )
    const data = Uint8Array.from({ length: 64 }, () => random.int(256))
    sender.send(receiver.mapped.info.number, BigInt(round), data)
    const { data: received, tag } = receive(receiver.mapped) ?? assert.fail('a message of an honest client was lost')
    assert.deepEqual([received, tag], [data, BigInt(round)])
  }
  for (const { context } of [sender, receiver]) closeContext(context)
  assert.equal(stat(core).objects, 0)
  return outcomes
}

describe('hostile clients of a ctx device', () => {
  for (const seed of [1, 2])
    it(`affect no other client, seed ${seed}`, () => {
      const outcomes = run(seed)
      assert.ok(outcomes.ok > 400 && outcomes.EINVAL > 100, JSON.stringify(outcomes))
    })
})
