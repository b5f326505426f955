/*
 * Malformed messages, access to other clients' objects, and exhausted resources end at most the client's session.
 */
import assert from 'node:assert/strict'
import { closeSync, constants, openSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { type Daemon, startDaemon } from '../../../src/daemon/daemon.ts'
import { EAGAIN, ECONNRESET } from '../../../src/host/errno.ts'
import { nativeLibraryPath } from '../../../src/host/library.ts'
import { charged, chargedRequest, MAX_WAIT } from '../../../src/host/memory/budget.ts'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import type { Mover } from '../../../src/host/memory/mover.ts'
import { close, connect, send } from '../../../src/host/net/sockets.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../../src/spec/linux/ioctl.ts'
import { offsetsOf } from '../../../src/spec/message-layout.ts'
import { Messages, MessageType, OpenWants, SessionLimits } from '../../../src/spec/session.ts'
import { ioctlRequest } from '../../../src/uapi/object/format.ts'
import { messageBuffer, writeHello } from '../../../src/uapi/session-codec.ts'
import { scratchFolder } from '../../tools.ts'
import { type Client, Command, CommandBytes, daemonOf, dial, eventually } from '../client.ts'

const folder = scratchFolder()
const HEADER = Messages.header.size
/** Offsets of fields of the header. */
const { type: TYPE, size: SIZE, context: CONTEXT } = offsetsOf(Messages.header)

/** A message with a valid header, except for given fields. `fill`: the value of all bytes of the body; 0x20: spaces. */
const message = (
  type: number,
  length = HEADER,
  fields: { size?: number; context?: number; fill?: number } = {},
): Uint8Array => {
  const bytes = new Uint8Array(length)
  const view = new DataView(bytes.buffer)
  bytes.fill(fields.fill ?? 0, Math.min(HEADER, length))
  if (length < CONTEXT + 4) return bytes
  view.setUint32(TYPE, type, true)
  view.setUint32(SIZE, fields.size ?? length, true)
  view.setUint32(CONTEXT, fields.context ?? 0, true)
  return bytes
}

/** Connects a client that must stay unaffected, with a context and a protection domain. */
const connectOther = async (t: TestContext, daemon: Daemon) => {
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, CommandBytes.ALLOC_PD)
  return {
    client,
    context,
    /** Asserts that the client is served, and that all its objects exist. */
    async assertServed(): Promise<void> {
      const { ret, response } = await client.command(context, Command.ALLOC_PD, [], 1)
      assert.deepEqual([ret, response], [CommandBytes.ALLOC_PD, [1]])
      assert.equal((await client.command(context, Command.DEALLOC_PD, [1])).ret, CommandBytes.DEALLOC_PD)
      const { contexts, devices } = await client.stat()
      assert.equal(contexts, 1)
      assert.deepEqual(devices[0].objects, { async_fd: 1, pd: 1 })
    },
  }
}

const openDescriptors = (): number => readdirSync('/proc/self/fd').length

test('malformed messages end only their session', async t => {
  const daemon = await daemonOf(t, folder)
  const other = await connectOther(t, daemon)
  const sizes = {
    [MessageType.HELLO]: HEADER + Messages.hello.size,
    [MessageType.OPEN]: HEADER + Messages.open.size,
    [MessageType.ATTACH]: HEADER,
    [MessageType.IOCTL]: HEADER + Messages.ioctl.size,
    [MessageType.WRITE]: HEADER + Messages.write.size,
  }
  const wrong: [title: string, bytes: Uint8Array][] = [
    ['one byte', Uint8Array.of(1)],
    ['half a header', message(MessageType.HELLO, 16)],
    ['a header and no body', message(MessageType.HELLO)],
    ['longer than any message', message(MessageType.TOOL, SessionLimits.bytes + 1)],
    ['far longer than any message', message(MessageType.TOOL, 200_000)],
    ['a size that is not the length', message(MessageType.ATTACH, HEADER, { size: HEADER + 8 })],
    ['a size of 2^32 - 1', message(MessageType.ATTACH, HEADER, { size: 0xffffffff })],
    ['type 0', message(0)],
    ['a TRACE message', message(MessageType.TRACE, HEADER + 2)],
    ['a reply', message(MessageType.REPLY | MessageType.IOCTL, HEADER + 16)],
    ['type 0xffffffff', message(0xffffffff)],
    ...Object.entries(sizes).flatMap(([type, size]): [string, Uint8Array][] => [
      [`type ${type}, 8 bytes more`, message(Number(type), size + 8)],
      ...(size > HEADER
        ? [[`type ${type}, 4 bytes less`, message(Number(type), size - 4)] as [string, Uint8Array]]
        : []),
    ]),
  ]
  for (const hasHello of [false, true])
    for (const [title, bytes] of wrong) {
      const client = dial(t, daemon)
      if (hasHello) assert.equal((await client.hello()).error, 0)
      assert.ok(client.send(bytes) > 0)
      assert.equal(await client.next(), undefined, `${title}, ${hasHello ? 'after' : 'before'} HELLO`)
      client.close()
    }
  await other.assertServed()
})

test('NOT_MAPPED after no call that has told to map memory is refused', async t => {
  const daemon = await daemonOf(t, folder)
  const { client, context, assertServed } = await connectOther(t, daemon)
  client.send(message(MessageType.NOT_MAPPED, HEADER + Messages.notMapped.size, { context }))
  assert.equal((await client.next())?.ret, BigInt(-Errno.EINVAL))
  await assertServed()
})

test('messages before HELLO are not answered', async t => {
  const daemon = await daemonOf(t, folder)
  const validMessages = [
    message(MessageType.OPEN, HEADER + Messages.open.size),
    message(MessageType.ATTACH, HEADER),
    message(MessageType.IOCTL, HEADER + Messages.ioctl.size),
    message(MessageType.WRITE, HEADER + Messages.write.size),
    message(MessageType.TOOL, HEADER + 2, { fill: 0x20 }),
  ]
  for (const bytes of validMessages) {
    const client = dial(t, daemon)
    client.send(bytes)
    assert.equal(await client.next(), undefined)
    client.close()
  }
})

test('HELLO with another protocol version is answered with EPROTO, and the next message ends the session', async t => {
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  const hello = message(MessageType.HELLO, HEADER + Messages.hello.size)
  new DataView(hello.buffer).setUint32(HEADER, 99, true)
  client.send(hello)
  const reply = await client.next()
  assert.deepEqual([reply?.error, reply?.descriptors.length], [Errno.EPROTO, 0])
  client.send(message(MessageType.OPEN, HEADER + Messages.open.size))
  assert.equal(await client.next(), undefined)
})

test('a session without a valid HELLO ends after 10 seconds', async t => {
  const daemon = await daemonOf(t, folder)
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const [silent, wrong, late, greeted] = [dial(t, daemon), dial(t, daemon), dial(t, daemon), dial(t, daemon)]
  wrong.send(message(MessageType.HELLO, HEADER + Messages.hello.size))
  assert.equal((await wrong.next())?.error, Errno.EPROTO)
  await greeted.hello()
  await eventually(greeted, ({ sessions }) => sessions === 3)
  t.mock.timers.tick(9_999)
  assert.equal((await greeted.stat()).sessions, 3)
  // Sent in time, but not read before the timer fires.
  const answer = late.hello()
  t.mock.timers.tick(1)
  assert.equal((await answer).error, 0)
  assert.deepEqual([await silent.next(), await wrong.next()], [undefined, undefined])
  assert.equal((await greeted.stat()).sessions, 1)
})

test('random messages affect no other client', async t => {
  const daemon = await daemonOf(t, folder)
  const other = await connectOther(t, daemon)
  const type = fc.oneof(fc.constantFrom(...Object.values(MessageType)), fc.integer({ min: 0, max: 2 ** 32 - 1 }))
  const body = fc.uint8Array({ maxLength: 120, size: 'max' })
  const randomMessage = fc.record({ type, body, hasRightSize: fc.boolean(), context: fc.nat(3) })
  await fc.assert(
    fc.asyncProperty(
      fc.array(randomMessage, { minLength: 1, maxLength: 8 }),
      fc.boolean(),
      async (messages, hasHello) => {
        const client = dial(t, daemon)
        if (hasHello) await client.hello()
        for (const { type, body, hasRightSize, context } of messages) {
          const bytes = message(type, HEADER + body.length, { context, ...(hasRightSize ? {} : { size: body.length }) })
          bytes.set(body, HEADER)
          client.send(bytes)
        }
        // The daemon answers the other client after it has handled these messages.
        await other.client.stat()
        for (let reply = client.next(); ; reply = client.next()) {
          const received = await Promise.race([reply, other.client.stat().then(() => 'quiet' as const)])
          if (received === undefined || received === 'quiet') break
          for (const fd of received.descriptors) close(fd)
        }
        client.close()
      },
    ),
    { numRuns: 150 },
  )
  await eventually(other.client, ({ contexts, sessions }) => contexts === 1 && sessions === 0)
  await other.assertServed()
})

test('the number of another client’s context is refused with EBADF', async t => {
  const daemon = await daemonOf(t, folder)
  const other = await connectOther(t, daemon)
  const client = dial(t, daemon)
  await client.hello()
  for (const context of [0, other.context, other.context + 1, 0xffffffff]) {
    assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, -Errno.EBADF)
    assert.equal(await client.ioctl(context, RDMA_VERBS_IOCTL, 0n), -Errno.EBADF)
  }
  const ownContext = await client.context()
  assert.notEqual(ownContext, other.context)
  assert.equal(
    (await client.command(ownContext, Command.DEALLOC_PD, [0])).ret,
    -Errno.ENOENT,
    'handles are per context',
  )
  assert.equal((await client.command(other.context, Command.DEALLOC_PD, [0])).ret, -Errno.EBADF)
  client.close()
  await eventually(other.client, ({ contexts }) => contexts === 1)
  await other.assertServed()
})

test('ATTACH with the memory file of a context gives access to the context; other descriptors are refused', async t => {
  const daemon = await daemonOf(t, folder)
  const other = await connectOther(t, daemon)
  const owner = dial(t, daemon)
  await owner.hello()
  const { context, descriptors, inode } = await owner.open()
  owner.keep(descriptors)
  const [file, doorbell] = descriptors
  const client = dial(t, daemon)
  await client.hello()
  const similarFile = createMemfd('userdma-context', 2 ** 30)
  const plain = openSync('/dev/null', 'r')
  for (const [fd, errno] of [
    [similarFile, Errno.ENODEV],
    [plain, Errno.ENODEV],
    [doorbell, Errno.ENODEV],
    [0, Errno.ENODEV],
    [-1, Errno.EBADF],
    [2 ** 31 - 1, Errno.EBADF],
  ])
    assert.equal((await client.attach(fd)).error, errno, `descriptor ${fd}`)
  closeSync(similarFile)
  closeSync(plain)
  assert.equal((await client.command(context, Command.GET_CONTEXT, [], 2)).ret, -Errno.EBADF)
  const attached = await client.attach(file)
  assert.deepEqual([attached.error, attached.context, attached.inode], [0, context, inode])
  assert.equal(attached.descriptors.length, 1)
  client.keep(attached.descriptors)
  assert.equal((await client.command(context, Command.GET_CONTEXT, [], 2)).ret, CommandBytes.GET_CONTEXT)
  // A context exists until all copies of all its doorbells are closed.
  owner.close()
  await eventually(client, ({ sessions }) => sessions === 1)
  assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, CommandBytes.ALLOC_PD)
  client.close()
  await eventually(other.client, ({ contexts }) => contexts === 1)
  await other.assertServed()
})

test('nodes that do not exist are refused', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1', '127.0.0.2'])
  const client = dial(t, daemon)
  await client.hello()
  for (const node of [2, 0xffffffff]) assert.equal((await client.open(node)).error, Errno.ENOENT)
  assert.ok((await client.context(1)) > 0)
  assert.equal((await client.stat()).contexts, 1)
})

test("a context's file has the access mode that the client wants", async t => {
  const client = dial(t, await daemonOf(t, folder))
  await client.hello()
  const { O_RDONLY, O_WRONLY, O_RDWR } = constants
  for (const [wants, access] of [
    [OpenWants.READ_ONLY, O_RDONLY],
    [OpenWants.WRITE_ONLY, O_WRONLY],
    [0, O_RDWR],
  ]) {
    const { descriptors } = await client.open(0, wants)
    const flags = /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${descriptors[0]}`, 'utf8'))?.[1]
    assert.equal(Number.parseInt(flags ?? '', 8) & 3, access)
    for (const fd of descriptors) close(fd)
  }
})

test('invalid pointers, lengths and requests are refused, and random calls affect no other client', async t => {
  const daemon = await daemonOf(t, folder)
  const other = await connectOther(t, daemon)
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  const at = BigInt(client.memory.address)
  for (const address of [0n, 8n, 1n << 47n, 1n << 63n, (1n << 64n) - 8n]) {
    assert.equal(await client.write(context, address, 16n), -Errno.EFAULT)
    assert.equal(await client.ioctl(context, RDMA_VERBS_IOCTL, address), -Errno.EFAULT)
  }
  for (const length of [0n, 4n, 1n << 20n, 1n << 40n, (1n << 64n) - 1n])
    assert.ok((await client.write(context, at, length)) < 0, `length ${length}`)
  // Unknown requests, one with type 0x1b of RDMA_VERBS_IOCTL, and TCGETS of terminals.
  for (const request of [0, 0x1b02, 0x5401, 0xffffffff])
    assert.equal(await client.ioctl(context, request, at), -Errno.ENOTTY, `request ${request}`)
  const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 64, maxLength: 300, size: 'max' }),
      fc.boolean(),
      fc.nat(60),
      u64,
      async (bytes, isWrite, command, address) => {
        const { memory } = client
        memory.bytes.set(bytes)
        if (isWrite) {
          memory.u32[0] = command
          memory.view.setUint16(4, bytes.length >> 2, true)
          await client.write(context, at, BigInt(bytes.length & ~3))
        } else {
          // struct ib_uverbs_ioctl_hdr: length and object_id. Offset 32: the data of the first attribute.
          memory.view.setUint16(0, bytes.length, true)
          memory.view.setUint16(2, command, true)
          memory.view.setBigUint64(32, address, true)
          await client.ioctl(context, RDMA_VERBS_IOCTL, at)
          await client.ioctl(context, ioctlRequest(command), at)
        }
      },
    ),
    { numRuns: 400 },
  )
  client.close()
  await eventually(other.client, ({ contexts }) => contexts === 1)
  await other.assertServed()
})

test('the daemon closes unexpected descriptors of a message', async t => {
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  await client.hello()
  const extra = openSync('/dev/null', 'r')
  const before = openDescriptors()
  for (let i = 0; i < 5; i++) {
    client.send(message(MessageType.OPEN, HEADER + Messages.open.size, { fill: 0xff }), [extra, extra, extra])
    assert.equal((await client.next())?.error, Errno.ENOENT)
    assert.ok('error' in (await client.tool('{}', [extra, extra])))
    assert.ok('stat' in (await client.tool({ kind: 'stat' }, [extra])))
    const traceRequest = { kind: 'subscribe', topic: 'trace', tag: '', pcap: false }
    const late = dial(t, daemon)
    await late.hello()
    assert.ok('subscribed' in (await late.tool(traceRequest, [extra])))
    late.close()
  }
  await eventually(client, ({ sessions }) => sessions === 0)
  assert.equal(openDescriptors(), before)
  const sender = dial(t, daemon)
  await sender.hello()
  sender.send(message(MessageType.ATTACH), new Array(SessionLimits.descriptors + 1).fill(extra))
  assert.equal(await sender.next(), undefined, 'more than a message may carry')
  sender.close()
  assert.equal(openDescriptors(), before)
  const early = dial(t, daemon)
  early.send(message(MessageType.TOOL, HEADER + 2, { fill: 0x20 }), [extra, extra])
  assert.equal(await early.next(), undefined, 'before HELLO')
  early.close()
  assert.equal(openDescriptors(), before)
  closeSync(extra)
})

test('another user’s messages with descriptors, each of which costs a process, wait for the user’s time', {
  skip: nativeLibraryPath() === undefined && 'the native library was not built: descriptors are received directly',
}, async t => {
  let milliseconds = performance.now()
  let step = 0
  t.mock.method(performance, 'now', () => (milliseconds += step))
  const daemon = await startDaemon({
    socket: join(folder, 'shared'),
    config: { devices: [], fault: '', link: 'memory' },
    endWithLastClient: false,
    served: { users: [process.getuid?.() ?? 0], groups: [] },
  })
  t.after(() => daemon.close())
  // From now on this process's user is a guest.
  const effective = t.mock.method(process as { geteuid(): number }, 'geteuid', () => 12345)
  t.after(() => effective.mock.restore())
  const [passing, other] = [dial(t, daemon), dial(t, daemon)]
  const file = createMemfd('passed', 4096)
  t.after(() => closeSync(file))
  const written = message(MessageType.WRITTEN)
  for (const client of [passing, other]) {
    await client.hello()
  }
  step = 100
  passing.send(written, [file])
  assert.ok(await passing.next(), 'what the user has saved up')
  step = 0
  passing.send(written, [file])
  const answer = passing.next()
  for (let i = 0; i < 3; i++) {
    other.send(written)
    assert.ok(await other.next())
  }
  assert.equal(await Promise.race([answer, 'none']), 'none')
  milliseconds += 60_000
  assert.ok(await answer)
})

test('requests of a user whose programs have delayed the daemon wait, others do not, and nobody is disconnected', async t => {
  let milliseconds = performance.now()
  t.mock.method(performance, 'now', () => milliseconds)
  const lines: string[] = []
  const user = process.getuid?.() ?? 0
  const daemon = await startDaemon({
    socket: join(folder, 'delayed'),
    config: { devices: [], fault: '', link: 'memory' },
    endWithLastClient: false,
    served: { users: [user], groups: [] },
    parts: { log: line => lines.push(String(line)) },
  })
  t.after(() => daemon.close())
  const own = dial(t, daemon)
  await own.hello()
  // From now on this process's user is a guest.
  const effective = t.mock.method(process as { geteuid(): number }, 'geteuid', () => 12345)
  t.after(() => effective.mock.restore())
  const guests = [dial(t, daemon), dial(t, daemon)]
  for (const guest of guests) await guest.hello()
  const mover = { waited: () => 0, delayed: () => MAX_WAIT + 500 } as Mover
  chargedRequest(user, () => void charged(user, mover, () => 0))
  const written = message(MessageType.WRITTEN)
  let answered = 0
  const answers = guests.map(async guest => {
    guest.send(written)
    assert.ok(await guest.next())
    answered++
  })
  // the timers of the guests' sessions run out meanwhile, but on the daemon's clock no time passes
  for (let i = 0; i < 50; i++) {
    own.send(written)
    assert.ok(await own.next())
  }
  assert.equal(answered, 0)
  assert.equal(lines.filter(line => /waits for its answers, as all programs of user/.test(line)).length, 1)
  milliseconds += 60_000
  await Promise.all(answers)
})

const openUntilRefused = async (client: Client, max: number): Promise<number> => {
  for (let i = 0; i <= max; i++) {
    const { error, descriptors } = await client.open()
    client.keep(descriptors)
    if (error !== 0) {
      assert.equal(error, Errno.EMFILE)
      return i
    }
  }
  return assert.fail(`more than ${max} contexts were opened`)
}

test('a session has at most 1024 contexts, not counting closed ones', async t => {
  const daemon = await daemonOf(t, folder)
  const other = await connectOther(t, daemon)
  const client = dial(t, daemon)
  await client.hello()
  assert.equal(await openUntilRefused(client, 2000), 1024)
  const second = dial(t, daemon)
  await second.hello()
  assert.equal((await second.open()).error, 0, 'another session may open contexts')
  client.close()
  await eventually(other.client, ({ contexts }) => contexts <= 2)
  const again = dial(t, daemon)
  await again.hello()
  for (let i = 0; i < 300; i++) {
    const { error, descriptors } = await again.open()
    assert.equal(error, 0, `context ${i}`)
    for (const fd of descriptors) close(fd)
    await eventually(again, ({ contexts }) => contexts <= 2)
  }
})

test('the event descriptors of a context are limited', async t => {
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  const channels: number[] = []
  for (;;) {
    const { ret, fds } = await client.command(context, Command.CREATE_COMP_CHANNEL, [], 1)
    if (ret < 0) {
      assert.deepEqual([ret, fds.length], [-Errno.EMFILE, 0])
      break
    }
    channels.push(...fds)
  }
  // rsockets and rdma_create_ep need one descriptor per connection. The context has one for async events.
  assert.ok(channels.length > 1024 && channels.length <= 8191, `${channels.length}`)
  for (const fd of channels.splice(0)) close(fd)
  await eventually(
    client,
    ({ descriptors, devices }) => descriptors <= 1 && (devices[0].objects.comp_channel ?? 0) === 0,
  )
  const { ret, fds } = await client.command(context, Command.CREATE_COMP_CHANNEL, [], 1)
  assert.equal(ret, CommandBytes.CREATE_COMP_CHANNEL)
  client.keep(fds)
})

test('a process has at most 16 sessions, not counting closed ones', async t => {
  const daemon = await daemonOf(t, folder)
  const clients: Client[] = []
  for (let i = 0; i < 16; i++) {
    const client = dial(t, daemon)
    assert.equal((await client.hello()).error, 0, `session ${i}`)
    clients.push(client)
  }
  const late = dial(t, daemon)
  assert.equal((await late.hello()).error, Errno.EMFILE)
  assert.equal(await late.next(), undefined)
  clients[3].close()
  // without the closed one, and the one that asks
  await eventually(clients[0], ({ sessions }) => sessions === 14)
  const again = dial(t, daemon)
  assert.equal((await again.hello()).error, 0)
})

for (const [title, request] of [
  ['requests of tools', message(MessageType.TOOL, HEADER + 40, { fill: 0x20 })],
  ['calls', message(MessageType.REFRESH)],
] as const)
  test(`a client that sends ${title} and never reads is disconnected`, async t => {
    const daemon = await daemonOf(t, folder)
    const other = await connectOther(t, daemon)
    const fd = connect(daemon.socket)
    t.after(() => close(fd))
    const buffer = messageBuffer()
    let result = send(fd, buffer.bytes.subarray(0, writeHello(buffer, {})))
    for (let rounds = 0; rounds < 500 && (result > 0 || result === -EAGAIN); rounds++) {
      while (result > 0) result = send(fd, request)
      await other.client.stat()
      if (result === -EAGAIN) result = send(fd, request)
    }
    assert.ok(result === -Errno.EPIPE || result === -ECONNRESET, `result ${result}`)
    await eventually(other.client, ({ sessions }) => sessions === 0)
    await other.assertServed()
  })

test('the close of a daemon ends its sessions and closes all its descriptors', async t => {
  const before = openDescriptors()
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  await client.command(context, Command.ALLOC_PD, [], 1)
  await daemon.close()
  assert.equal(await client.next(), undefined)
  client.close()
  assert.equal(openDescriptors(), before)
})
