/*
 * Calls in shared memory (daemon/session/call-slot-layout.ts), by a client that fills the slot itself.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { dispatch } from '../../../src/core/dispatch/dispatch.ts'
import { startDaemon } from '../../../src/daemon/daemon.ts'
import { AnswerState, CallSlot } from '../../../src/daemon/session/call-slot-layout.ts'
import { EAGAIN } from '../../../src/host/errno.ts'
import { createRingPool, type Mapping } from '../../../src/host/memory/mapping.ts'
import { close, connect, send } from '../../../src/host/net/sockets.ts'
import { HelloWants, Messages } from '../../../src/spec/session.ts'
import {
  messageBuffer,
  newReply,
  type Reply,
  readReply,
  writeHello,
  writeRequest,
} from '../../../src/uapi/session-codec.ts'
import { scratchFolder } from '../../tools.ts'
import { type Client, Command, CommandBytes, daemonOf, dial } from '../client.ts'

const RANGE = Messages.range.size
const pool = createRingPool()
const folder = scratchFolder()

interface SlotClient {
  readonly client: Client
  readonly slot: Mapping
  /** The number of a context. */
  readonly context: number
  /** Puts a WRITE into the slot. `ranges`: copies of memory. Sends CALL if the daemon does not look. */
  ask(buffer: bigint, length: number, ranges: readonly (readonly [bigint, Uint8Array])[]): void
  /** The answer in the slot, when there is one. */
  answer(): Promise<Reply>
  /** What the answer says that the call has written. */
  outputs(): [address: bigint, bytes: Uint8Array][]
}

const word = (slot: Mapping, offset: number): number => Atomics.load(slot.i32, offset >> 2)

const slotClient = async (t: TestContext, socket: string): Promise<SlotClient> => {
  const client = dial(t, { socket })
  const message = messageBuffer()
  client.send(message.bytes.slice(0, writeHello(message, {}, '', HelloWants.SLOT)))
  const hello = await client.next()
  client.keep(hello?.descriptors ?? [])
  assert.equal(hello?.descriptors.length, 2)
  const slot = pool.map(hello!.descriptors[1]!, 0, CallSlot.bytes)
  t.after(() => pool.release(slot))
  const context = await client.context()
  let serial = 0
  return {
    client,
    slot,
    context,
    ask(buffer, length, ranges) {
      const size = writeRequest(message, 'WRITE', { context, serial: ++serial }, { buffer, length })
      slot.bytes.set(message.bytes.subarray(0, size), CallSlot.request)
      let at: number = CallSlot.input
      for (const [i, [address, bytes]] of ranges.entries()) {
        slot.view.setBigUint64(CallSlot.ranges + i * RANGE, address, true)
        slot.view.setBigUint64(CallSlot.ranges + i * RANGE + 8, BigInt(bytes.length), true)
        slot.bytes.set(bytes, at)
        at += bytes.length
      }
      slot.u32[CallSlot.rangeCount >> 2] = ranges.length
      Atomics.store(slot.i32, CallSlot.answer >> 2, AnswerState.NONE)
      Atomics.store(slot.i32, CallSlot.asked >> 2, serial)
      if (word(slot, CallSlot.polled) === 0) call(client)
    },
    async answer() {
      while (word(slot, CallSlot.answer) === AnswerState.NONE) await new Promise(setImmediate)
      assert.equal(word(slot, CallSlot.answer), AnswerState.SLOT)
      const reply = newReply()
      const bytes = slot.bytes.slice(CallSlot.reply, CallSlot.reply + CallSlot.replyBytes)
      const copy = messageBuffer(bytes)
      assert.equal(readReply(copy, copy.view.getUint32(4, true), reply), undefined)
      assert.equal(reply.serial, serial)
      return reply
    },
    outputs() {
      let at: number = CallSlot.output
      return Array.from({ length: slot.u32[CallSlot.outputCount >> 2]! }, (_, i) => {
        const address = slot.view.getBigUint64(CallSlot.outputs + i * RANGE, true)
        const length = Number(slot.view.getBigUint64(CallSlot.outputs + i * RANGE + 8, true))
        at += length
        return [address, slot.bytes.slice(at - length, at)]
      })
    },
  }
}

const call = (client: Client): void => {
  const message = messageBuffer()
  client.send(message.bytes.slice(0, writeRequest(message, 'CALL', {})))
}

/** A command that allocates a protection domain, with its response at `response`. */
const allocPd = (response: bigint): Uint8Array => {
  const bytes = new Uint8Array(CommandBytes.ALLOC_PD)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, Command.ALLOC_PD, true)
  view.setUint16(4, bytes.length / 4, true)
  view.setUint16(6, 1, true)
  view.setBigUint64(8, response, true)
  return bytes
}

/** Says from where to where the client's stack is. */
const setStack = (slot: Mapping, low: bigint, high: bigint): void => {
  slot.view.setBigUint64(CallSlot.stackLow, low, true)
  slot.view.setBigUint64(CallSlot.stackHigh, high, true)
}

/** No handle. */
const UNWRITTEN = 0xffff_ffff
/** No process has memory there. */
const NOWHERE = 0x1000n

const start = async (t: TestContext): Promise<{ one: SlotClient; socket: string }> => {
  const { socket } = await daemonOf(t, folder)
  return { one: await slotClient(t, socket), socket }
}

test('a call reads what the slot has of the program, and brings back what it writes to the stack', async t => {
  const { one } = await start(t)
  setStack(one.slot, NOWHERE, NOWHERE + 4096n)
  const handles = new Set<number>()
  for (let i = 0; i < 100; i++) {
    one.ask(NOWHERE, CommandBytes.ALLOC_PD, [[NOWHERE, allocPd(NOWHERE + 64n)]])
    assert.equal((await one.answer()).ret, BigInt(CommandBytes.ALLOC_PD))
    const [[address, bytes]] = one.outputs() as [[bigint, Uint8Array]]
    assert.equal(address, NOWHERE + 64n)
    handles.add(new DataView(bytes.buffer).getUint32(0, true))
  }
  assert.equal(handles.size, 100)
})

test('memory that the slot does not have is read and written in the process, where bad addresses are EFAULT', async t => {
  const { one } = await start(t)
  const { memory } = one.client
  memory.u32[512] = UNWRITTEN
  memory.bytes.set(allocPd(BigInt(memory.address + 2048)))
  one.ask(BigInt(memory.address), CommandBytes.ALLOC_PD, [])
  assert.equal((await one.answer()).ret, BigInt(CommandBytes.ALLOC_PD))
  assert.deepEqual(one.outputs(), [])
  assert.notEqual(memory.u32[512], UNWRITTEN)
  one.ask(NOWHERE, CommandBytes.ALLOC_PD, [])
  assert.equal((await one.answer()).ret, -14n)
  // not on what it says is its stack
  setStack(one.slot, NOWHERE, NOWHERE + 67n)
  one.ask(NOWHERE, CommandBytes.ALLOC_PD, [[NOWHERE, allocPd(NOWHERE + 64n)]])
  assert.equal((await one.answer()).ret, -14n)
})

test('a client that no longer looks gets the answer by the socket, and what it wrote in the slot, since it may have left the call', async t => {
  const { one } = await start(t)
  const { memory } = one.client
  const response = BigInt(memory.address + 2048)
  memory.u32[512] = UNWRITTEN
  setStack(one.slot, BigInt(memory.address), BigInt(memory.address + 4096))
  one.ask(NOWHERE, CommandBytes.ALLOC_PD, [[NOWHERE, allocPd(response)]])
  Atomics.store(one.slot.i32, CallSlot.answer >> 2, AnswerState.AWAITED)
  assert.equal((await one.client.next())?.ret, BigInt(CommandBytes.ALLOC_PD))
  assert.equal(memory.u32[512], UNWRITTEN)
  assert.equal(one.outputs()[0]?.[0], response)
  assert.equal(word(one.slot, CallSlot.answer), AnswerState.AWAITED)
})

test('an answer with descriptors comes by the socket', async t => {
  const { one } = await start(t)
  const { client } = one
  const { memory } = client
  const bytes = allocPd(BigInt(memory.address + 2048))
  new DataView(bytes.buffer).setUint32(0, Command.CREATE_COMP_CHANNEL, true)
  one.ask(NOWHERE, bytes.length, [[NOWHERE, bytes]])
  const reply = await client.next()
  assert.equal(reply?.descriptors.length, 1)
  client.keep(reply!.descriptors)
  while (word(one.slot, CallSlot.answer) === AnswerState.NONE) await new Promise(setImmediate)
  assert.equal(word(one.slot, CallSlot.answer), AnswerState.SOCKET)
})

const startLogged = async (t: TestContext, dispatched = () => {}) => {
  const lines: string[] = []
  const daemon = await startDaemon({
    socket: join(folder, `logged${logged++}`),
    config: { devices: [{ name: 'rxe0', address: '127.0.0.1' }], fault: '', link: 'memory' },
    endWithLastClient: false,
    parts: {
      log: line => lines.push(String(line)),
      dispatch: ((...args: Parameters<typeof dispatch>) => {
        dispatched()
        return dispatch(...args)
      }) as typeof dispatch,
    },
  })
  t.after(() => daemon.close())
  return { lines, socket: daemon.socket }
}
let logged = 0
const LEAVES = /^userdma daemon: process \d+ \(.*\) is disconnected: it asks again, and does not take the answers$/

/** Asks without setting NONE: the answer before is not taken. */
const askAgain = ({ slot, client }: SlotClient): void => {
  Atomics.add(slot.i32, CallSlot.asked >> 2, 1)
  call(client)
}

const asksAgain: Readonly<Record<string, (one: SlotClient) => Promise<void>>> = {
  'after an answer in the slot': async one => {
    one.ask(NOWHERE, CommandBytes.ALLOC_PD, [])
    await one.answer()
    askAgain(one)
  },
  'after an answer by the socket': async one => {
    const { memory } = one.client
    const bytes = allocPd(BigInt(memory.address + 2048))
    new DataView(bytes.buffer).setUint32(0, Command.CREATE_COMP_CHANNEL, true)
    one.ask(NOWHERE, bytes.length, [[NOWHERE, bytes]])
    one.client.keep((await one.client.next())!.descriptors)
    askAgain(one)
  },
}
for (const [when, act] of Object.entries(asksAgain))
  test(`a client that asks again ${when}, and has not taken it, is disconnected, as the log says`, async t => {
    const { lines, socket } = await startLogged(t)
    const [one, other] = [await slotClient(t, socket), await slotClient(t, socket)]
    await act(one)
    assert.equal(await one.client.next(), undefined)
    assert.equal(lines.length, 1)
    assert.match(lines[0]!, LEAVES)
    other.ask(NOWHERE, CommandBytes.ALLOC_PD, [])
    assert.equal((await other.answer()).ret, -14n)
  })

test('a client that asks again before the answer is disconnected, as the log says', async t => {
  let one: SlotClient | undefined
  const { lines, socket } = await startLogged(t, () => one && askAgain(one))
  one = await slotClient(t, socket)
  one.ask(NOWHERE, CommandBytes.ALLOC_PD, [])
  assert.equal(await one.client.next(), undefined)
  assert.match(lines.join('\n'), LEAVES)
})

test('a client that sends messages and reads no answers is disconnected, as the log says', async t => {
  const { lines, socket } = await startLogged(t)
  const fd = connect(socket)
  t.after(() => close(fd))
  const message = messageBuffer()
  send(fd, message.bytes.slice(0, writeHello(message, {}, '', 0)))
  const refresh = message.bytes.slice(0, writeRequest(message, 'WRITTEN', {}))
  for (let sent = 0; lines.length === 0; sent++) {
    assert.ok(sent < 1e6, 'it is served without end')
    if (send(fd, refresh) === -EAGAIN) await new Promise(setImmediate)
  }
  assert.match(lines[0]!, LEAVES)
})

test('a CALL without a request has no effect', async t => {
  const { one } = await start(t)
  for (let i = 0; i < 40; i++) call(one.client)
  assert.equal((await one.client.open()).error, 0)
})

test('a hostile slot harms only its own session', async t => {
  const { one: other, socket } = await start(t)
  const positions = fc.nat(CallSlot.bytes - 1)
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(positions, fc.nat(255)), { maxLength: 64, size: 'max' }),
      fc.boolean(),
      async (changes, hasMessage) => {
        const one = await slotClient(t, socket)
        setStack(one.slot, 0n, 2n ** 64n - 1n)
        one.ask(NOWHERE, CommandBytes.ALLOC_PD, [[NOWHERE, allocPd(NOWHERE + 64n)]])
        if (!hasMessage) one.slot.bytes.fill(0xff, CallSlot.rangeCount, CallSlot.output)
        for (const [at, value] of changes) one.slot.bytes[at] = value
        call(one.client)
        other.ask(NOWHERE, CommandBytes.ALLOC_PD, [[NOWHERE, allocPd(BigInt(other.client.memory.address + 2048))]])
        assert.equal((await other.answer()).ret, BigInt(CommandBytes.ALLOC_PD))
        one.client.close()
      },
    ),
    { numRuns: 50 },
  )
})
