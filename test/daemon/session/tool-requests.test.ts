/*
 * Requests of tools.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { assemble } from '../../../src/assembly/assembly.ts'
import type { Device } from '../../../src/core/model.ts'
import { createLimit } from '../../../src/core/objects/limits.ts'
import { createContainment } from '../../../src/daemon/containment.ts'
import { createDevices } from '../../../src/daemon/devices/devices.ts'
import { createNetwork } from '../../../src/daemon/devices/network.ts'
import { type ToolParts, ToolRequests } from '../../../src/daemon/session/tool-requests.ts'
import { registeredDrivers } from '../../../src/drivers/registered.ts'
import type { SoftState } from '../../../src/drivers/soft/state.ts'
import type { PassedFd } from '../../../src/host/memory/mover.ts'
import { noFaultRuleCounts } from '../../../src/spec/faults.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import { emptyTappedRun } from '../../../src/transport/phy/port.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { messageBuffer, newReply, newRequest, readReply } from '../../../src/uapi/session-codec.ts'
import { type ToolRecord, type ToolReply, traceReader } from '../../../src/uapi/tool.ts'
import { readCapture } from '../../captures.ts'
import { ownAccount } from '../../core/accounts.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { scratchFolder } from '../../tools.ts'
import { Command, createCq, createRcQp, daemonOf, dial } from '../client.ts'
import { unboundedTime } from '../unbounded-time.ts'

const folder = scratchFolder()

test('config returns the daemon’s options, and stat its counts', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1', '::1'])
  const client = dial(t, daemon)
  await client.hello()
  const devices = [
    { name: 'rxe0', address: '127.0.0.1' },
    { name: 'rxe1', address: '::1' },
  ]
  assert.deepEqual(await client.tool({ kind: 'config' }), {
    config: { devices: devices.map((device, node) => ({ ...device, node })), fault: '', link: 'memory' },
  })
  const stat = await client.stat()
  assert.equal(stat.pid, process.pid)
  const empty = { count: 0, bytes: 0 }
  assert.deepEqual([stat.sessions, stat.contexts, stat.rings, stat.mappings, stat.descriptors], [0, 0, empty, empty, 0])
  assert.deepEqual(
    stat.devices.map(({ name, address, objects }) => ({ name, address, objects })),
    devices.map(device => ({ ...device, objects: {} })),
  )
})

test('faults are set, shown and cleared', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1', '127.0.0.2'])
  const client = dial(t, daemon)
  await client.hello()
  const faults = async (set?: string): Promise<unknown> =>
    client.tool({ kind: 'fault', ...(set !== undefined && { set }) })
  const rule = (text: string) => ({ rule: text, ...noFaultRuleCounts() })
  assert.deepEqual(await faults(), { faults: [] })
  const two = { faults: [rule('device=rxe1,drop=0.01'), rule('rate=10mbit')] }
  assert.deepEqual(await faults('drop=1%,device=rxe1;rate=10mbit'), two)
  const refused = await faults('device=rxe2,drop=1')
  assert.deepEqual(refused, {
    error: 'fault device: there is no soft device "rxe2"; there are rxe0, rxe1, did you mean "rxe0"?',
  })
  assert.match(JSON.stringify(await faults('drop=7')), /"error":"fault drop: \\"7\\" is not a probability/)
  assert.deepEqual(await faults(), two, 'a refused rule changes nothing')
  const { config } = (await client.tool({ kind: 'config' })) as { config: { fault: string } }
  assert.equal(config.fault, 'device=rxe1,drop=0.01;rate=10mbit')
  assert.deepEqual(await faults(''), { faults: [] })
})

test('all queue pairs are listed once, also those of a device that got the node of a removed device', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1', '127.0.0.2'])
  const client = dial(t, daemon)
  await client.hello()
  const nameOf = (device: string, qpn: number): string => `${device} ${qpn}`
  const createQps = async (node: number, device: string, count: number): Promise<string[]> => {
    const context = await client.context(node)
    const pd = (await client.command(context, Command.ALLOC_PD, [], 1)).response[0]!
    const cq = await createCq(client, context)
    const names: string[] = []
    for (let i = 0; i < count; i++) names.push(nameOf(device, await createRcQp(client, context, pd, cq)))
    return names
  }
  await client.tool({ kind: 'device', remove: 'rxe0' })
  await client.tool({ kind: 'device', add: { name: 'rxe2', address: '127.0.0.3' } })
  const created = [...(await createQps(1, 'rxe1', 60)), ...(await createQps(0, 'rxe2', 60))]
  const listed: string[] = []
  let cursor: unknown
  let replies = 0
  do {
    replies++
    const reply = await client.tool({ kind: 'qps', ...(cursor !== undefined && { cursor }) })
    assert.ok('qps' in reply)
    listed.push(...reply.qps.map(({ qpn, device }) => nameOf(device, qpn)))
    cursor = reply.next
  } while (cursor !== undefined && replies < 10)
  assert.ok(replies > 1, 'more queue pairs than fit in one reply')
  assert.deepEqual(listed.sort(), created.sort())
})

test('devices are borrowed until the end of the session, by one session, while no program uses them', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1', '127.0.0.2'])
  const [program, borrower, other] = [dial(t, daemon), dial(t, daemon), dial(t, daemon)]
  for (const client of [program, borrower, other]) await client.hello()
  const borrow = (client: typeof other) => client.tool({ kind: 'borrow' })
  const names = async (): Promise<string[]> => (await other.stat()).devices.map(({ name }) => name)
  await program.context(0)
  const refused = await borrow(borrower)
  assert.ok('error' in refused)
  assert.match(refused.error, /^process \d+ \(.+\) uses the devices$/)
  program.close()
  let reply = await borrow(borrower)
  // The end of the program reaches the daemon by another socket.
  while ('error' in reply) reply = await borrow(borrower)
  assert.deepEqual(reply, {
    borrowed: [
      { name: 'rxe0', address: '127.0.0.1' },
      { name: 'rxe1', address: '127.0.0.2' },
    ],
  })
  assert.deepEqual(await names(), [])
  assert.deepEqual(await borrow(other), { error: 'another command has the devices now' })
  // An address that is in use when they return: they return when it is free.
  await other.tool({ kind: 'device', add: { name: 'rxe7', address: '127.0.0.2' } })
  borrower.close()
  while ((await names()).length < 2) await new Promise(resolve => setImmediate(resolve))
  assert.deepEqual(await names(), ['rxe7', 'rxe0'])
  await other.tool({ kind: 'device', remove: 'rxe7' })
  while ((await names()).length < 2) await new Promise(resolve => setImmediate(resolve))
  assert.deepEqual(await names(), ['rxe0', 'rxe1'])
})

test('an invalid request is answered with a list of valid requests', async t => {
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  await client.hello()
  for (const text of [
    '{',
    'null',
    '7',
    '[]',
    '"stat"',
    '{}',
    '{"kind":1}',
    '{"kind":"reboot"}',
    '{"kind":{"toString":1}}',
    '{"kind":"subscribe"}',
    '{"kind":"subscribe","topic":"weather"}',
    '{"kind":"subscribe","topic":"stat"}',
    '{"kind":"subscribe","topic":"trace","tag":{"toString":1}}',
    '{"kind":"unsubscribe","id":"1"}',
    '{"kind":"fault","set":["drop=1"]}',
    '{"kind":"subscribe","topic":"trace","tag":7,"pcap":false}',
    '{"kind":"subscribe","topic":"trace","tag":"","pcap":"yes"}',
    '{"kind":"subscribe","topic":"trace","tag":"","abi":1}',
    '{"__proto__":{"kind":"stat"}}',
    '{"kind":"qps","cursor":{"node":0,"row":-1}}',
    '{"kind":"device"}',
    '{"kind":"link","device":"rxe0"}',
    '{"kind":"link","device":"rxe0","up":false,"milliseconds":1e300}',
    '{"kind":"link","device":"rxe0","up":true,"milliseconds":5}',
    '{"kind":"end-record","program":{"pid":-1}}',
    '{"kind":"device","add":{"name":"rxe1"}}',
    '{"kind":"device","remove":1}',
    '{"kind":"device","remove":"rxe0","add":{"name":"rxe1","address":"127.0.0.2"}}',
    `${'['.repeat(30_000)}`,
  ])
    assert.deepEqual(
      await client.tool(text),
      {
        error:
          'unknown request of a tool: this daemon answers config, stat, qps, waits, thread-waits, health, peer, report-waits, closed, fault, link, sites, device, borrow, counts, who, lent, orders, subscribe, unsubscribe, capture, record, record-frames, record-symbols, end-record and stop',
      },
      text.slice(0, 60),
    )
  assert.ok('stat' in (await client.tool({ kind: 'stat' })))
})

test('a capture needs a descriptor of a writable regular file, and a session has 16 subscriptions', async t => {
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  await client.hello()
  const request = async (fds: number[]): Promise<string> => {
    const reply = await client.tool({ kind: 'subscribe', topic: 'trace', tag: '', pcap: true }, fds)
    return 'error' in reply ? reply.error : Object.keys(reply)[0]
  }
  const path = join(folder, 'x.pcapng')
  const good = openSync(path, 'w')
  const readOnly = openSync(path, 'r')
  const other = openSync('/dev/null', 'w')
  assert.match(await request([]), /needs the descriptor/)
  assert.match(await request([other]), /regular file only/)
  assert.match(await request([readOnly]), /cannot be written.*EBADF/)
  assert.equal(await request([good]), 'subscribed')
  for (let i = 1; i < 16; i++) assert.ok('subscribed' in (await client.tool({ kind: 'subscribe', topic: 'trace' })))
  assert.match(await request([good]), /16 subscriptions, the maximum/)
  assert.deepEqual(await client.tool({ kind: 'unsubscribe', id: 16 }), { unsubscribed: 16, lost: 0 })
  assert.deepEqual(await client.tool({ kind: 'unsubscribe', id: 16 }), { error: 'this session has no subscription 16' })
  assert.equal(readFileSync(path).readUInt32LE(0), 0x0a0d0d0a, 'a section header')
  for (const fd of [good, readOnly, other]) closeSync(fd)
})

// ---- requests without a daemon ----

/**
 * Tool requests of a session of the daemon's user or of another user. The session records sent messages;
 * `setFreeMessages` sets how many more fit in its socket.
 */
const createRequests = (user: 'own user' | 'other user', more: Partial<ToolParts> = {}, memoryBytes?: number) => {
  const subscribers = new Set<(record: TraceRecord) => void>()
  let settled = 0
  const daemon = {
    config: { devices: [], fault: '', link: 'memory' },
    network: { faults: '' },
    subscriptions: createLimit('subscriptions', 16),
    trace: {
      settle: () => {
        settled++
      },
      subscribe: ({ post }: { post: (record: TraceRecord) => void }) => {
        subscribers.add(post)
        return () => subscribers.delete(post)
      },
    },
    lent: { takeBack() {} },
    ...more,
  } as unknown as ToolParts
  const buffer = messageBuffer()
  const account = ownAccount(memoryBytes)
  const sent: string[] = []
  let isWritableWanted = false
  let freeMessages = Number.POSITIVE_INFINITY
  let isClosed = false
  const read = (length: number): string => {
    assert.ok(length > 0, 'a message has a length')
    const reply = newReply()
    assert.equal(readReply(buffer, length, reply), undefined)
    return reply.text
  }
  const end = (): void => {
    isClosed = true
    requests.close()
  }
  const requests = new ToolRequests(daemon, {
    buffer,
    isTrusted: user === 'own user',
    account,
    time: unboundedTime,
    run: job => void unboundedTime.run(job),
    send: length => {
      if (freeMessages <= 0) return false
      freeMessages--
      sent.push(read(length))
      return true
    },
    wantWritable: value => {
      isWritableWanted = value
    },
    close: () => end(),
  })
  return {
    requests,
    subscribers,
    charged: () => account.memory.used,
    sent,
    isWritableWanted: () => isWritableWanted,
    isClosed: () => isClosed,
    settled: () => settled,
    close: end,
    setFreeMessages: (value: number) => {
      freeMessages = value
    },
    /** Handles a request, and removes its reply from `sent`. */
    request(request: unknown): ToolReply {
      requests.handle({ ...newRequest(), text: JSON.stringify(request) }, [])
      return JSON.parse(sent.pop() as string) as ToolReply
    },
    record: (more: Partial<TraceRecord>): void => {
      const defaults = {
        time: 1,
        duration: 1,
        pid: 1,
        tid: 1,
        fd: 3,
        command: 'x',
        device: 'rxe0',
        dialect: 'ioctl',
        ret: 0,
      } as const
      for (const post of subscribers) post({ ...defaults, ...more })
    },
  }
}

const trace = { kind: 'subscribe', topic: 'trace', tag: '', pcap: false }

test('a capture has the packets that a device receives from a device added later', t => {
  const options = { hasNative: true, core: {}, clients: {}, torment: undefined, onPackets: () => {} }
  const { core, link, addDevice } = assemble({ link: 'memory', path: 'direct', ...options })
  const network = createNetwork({ devices: [], fault: '' }, link)
  const devices = createDevices(core, network, undefined, { add() {}, remove() {} }, addDevice, registeredDrivers)
  const add = (name: string, address: string) => (devices.add({ name, address }).device as Device<SoftState>).state.port
  const port = add('rxe0', '127.0.0.1')
  add('rxe1', '127.0.0.2')
  const { requests, close } = createRequests('own user', { network, devices })
  const path = join(folder, 'later.pcapng')
  const file = openSync(path, 'w')
  requests.handle(
    { ...newRequest(), text: JSON.stringify({ kind: 'subscribe', topic: 'trace', tag: '', pcap: true }) },
    [file as PassedFd],
  )
  t.after(close)
  /** rxe0 receives a packet from 127.0.0.`last`. Returns the number of captured packets. */
  const receive = (last: number): number => {
    const run = emptyTappedRun(plainArena(64), 'received')
    const flow = { ...run.flow, source: ipv4(127, 0, 0, last), destination: ipv4(127, 0, 0, 1) }
    port.tap?.({ ...run, count: 1, packetBytes: 16, lastBytes: 16, flow })
    return readCapture(readFileSync(path)).length
  }
  assert.equal(receive(2), 0, 'a packet of rxe1 was captured when it was sent')
  add('rxe2', '127.0.0.3')
  assert.equal(receive(3), 1)
  devices.remove('rxe1')
  add('rxe1', '127.0.0.2')
  assert.equal(receive(2), 2)
})

test('a reply to a tool with a full socket is sent later, after the preceding records', () => {
  const { requests, request, record, sent, setFreeMessages, isWritableWanted } = createRequests('own user')
  request(trace)
  setFreeMessages(0)
  record({ pid: 7 })
  requests.handle({ ...newRequest(), text: JSON.stringify({ kind: 'config' }) }, [])
  assert.deepEqual([sent, isWritableWanted()], [[], true])
  setFreeMessages(2)
  requests.onWritable()
  assert.equal(sent.length, 2)
  assert.match(sent[0]!, /"pid":7/)
  assert.doesNotMatch(sent[1]!, /"pid":7/)
})

test('a session with 16 queued replies ends with the next request', () => {
  const { requests, sent, setFreeMessages, isClosed } = createRequests('own user')
  setFreeMessages(0)
  const send = (fds: readonly PassedFd[] = []) =>
    requests.handle({ ...newRequest(), text: JSON.stringify({ kind: 'config' }) }, fds)
  for (let i = 0; i < 16; i++) send()
  assert.equal(isClosed(), false)
  setFreeMessages(2)
  requests.onWritable()
  assert.equal(sent.length, 2)
  for (let i = 0; i < 2; i++) send()
  assert.equal(isClosed(), false)
  const passed = openSync('/dev/null', 'r')
  send([passed as PassedFd])
  assert.equal(isClosed(), true)
  assert.throws(() => closeSync(passed), { code: 'EBADF' })
})

test('an answer after the end of the session is not sent, and the descriptors of the request are closed', async () => {
  let destroyed = (): void => {}
  // The answer to `counts` waits for this promise.
  const untilContextsDestroyed = () =>
    new Promise<void>(resolve => {
      destroyed = resolve
    })
  const check = { counts: [], omissions: [], calls: 0 } as unknown as ToolParts['check']
  const { requests, sent, close } = createRequests('own user', {
    untilContextsDestroyed,
    check,
    containment: createContainment(),
  })
  const passed = openSync('/dev/null', 'r')
  requests.handle({ ...newRequest(), text: JSON.stringify({ kind: 'counts' }) }, [passed as PassedFd])
  close()
  destroyed()
  await new Promise(setImmediate)
  assert.deepEqual(sent, [])
  assert.throws(() => closeSync(passed), { code: 'EBADF' })
})

test('`closed` is answered when its context has ended; the 17th unanswered request ends the session', () => {
  const whenEnded = new Set<() => void>()
  const contexts = {
    withMemory: () => [
      { number: 4, whenEnded: new Set() },
      { number: 5, whenEnded },
    ],
  }
  const { requests, sent, isClosed } = createRequests('other user', { contexts } as unknown as Partial<ToolParts>)
  const send = (context: number | undefined) =>
    requests.handle({ ...newRequest(), text: JSON.stringify({ kind: 'closed', context }) }, [])
  const reply = '{"closed":true}'
  for (let i = 0; i < 15; i++) send(5)
  assert.deepEqual(sent, [])
  send(6)
  assert.deepEqual(sent.splice(0), [reply], 'context 6 does not exist')
  for (const onEnded of whenEnded) onEnded()
  assert.deepEqual(sent.splice(0), Array(15).fill(reply))
  send(undefined)
  assert.match(sent[0]!, /unknown request/)
  whenEnded.clear()
  for (let i = 0; i < 16; i++) send(5)
  assert.deepEqual([whenEnded.size, isClosed()], [16, false])
  send(5)
  assert.deepEqual([whenEnded.size, isClosed()], [0, true])
})

test('a session ends if an answer that it waits for fails', async () => {
  const failing = {
    containment: createContainment(() => {}),
    check: {} as unknown as ToolParts['check'],
    untilContextsDestroyed: () => Promise.reject(new Error('a bug')),
  }
  const { requests, isClosed } = createRequests('own user', failing)
  const passed = openSync('/dev/null', 'r')
  requests.handle({ ...newRequest(), text: JSON.stringify({ kind: 'counts' }) }, [passed as PassedFd])
  await new Promise(setImmediate)
  assert.equal(isClosed(), true)
  assert.equal(failing.containment.count, 1)
  assert.throws(() => closeSync(passed), { code: 'EBADF' })
})

test('only a tool that traces completes the records that wait for descriptors', () => {
  const { request, settled } = createRequests('own user')
  request({ kind: 'config' })
  request(trace)
  assert.equal(settled(), 0)
  request({ kind: 'config' })
  assert.equal(settled(), 1)
})

test('only the daemon’s user may trace calls, see findings, set faults and stop the daemon', () => {
  const stranger = createRequests('other user')
  const reply = stranger.request(trace)
  assert.match('error' in reply ? reply.error : '', /only the user/)
  assert.equal(stranger.subscribers.size, 0)
  for (const request of [{ kind: 'subscribe', topic: 'findings' }, { kind: 'counts' }])
    assert.deepEqual(stranger.request(request), { error: 'only the user of this daemon may see findings' })
  const stat = stranger.request({ kind: 'subscribe', topic: 'stat', interval: 1000, qps: true })
  assert.match('error' in stat ? stat.error : '', /only the user of this daemon may see queue pairs/)
  const fault = stranger.request({ kind: 'fault', set: 'drop=1' })
  assert.match('error' in fault ? fault.error : '', /only the user of this daemon may set faults/)
  assert.deepEqual(stranger.request({ kind: 'stop' }), { error: 'only the user of this daemon may stop it' })
  assert.ok('config' in stranger.request({ kind: 'config' }), 'any user may see the configuration')
})

/** Further messages of records are dropped while the socket is full. */
const MAX_QUEUED = 10_000
const MAX_QUEUED_BYTES = 8 * 2 ** 20

const recordsOf = (texts: readonly string[]): ToolRecord[] => {
  const read = traceReader()
  return texts.map(read).filter(record => record !== undefined)
}

/** What a tool knows of the calls with results 0, 1, 2 …: the result, or how many were lost at this place. */
const toldBy = (texts: readonly string[]): (number | string)[] =>
  recordsOf(texts).map(record =>
    'lost' in record ? `lost ${record.lost}` : (record as { change: TraceRecord }).change.ret,
  )

test('a slow tool gets records later and in order; beyond 10,000 their number, at their place', () => {
  const session = createRequests('own user')
  assert.deepEqual(session.request(trace), { subscribed: 1 })
  session.record({ ret: 0 })
  session.setFreeMessages(0)
  for (let i = 1; i <= MAX_QUEUED + 50; i++) session.record({ ret: i })
  assert.equal(session.isWritableWanted(), true)
  assert.equal(session.sent.length, 1)
  session.setFreeMessages(3)
  session.requests.onWritable()
  for (let i = 0; i < 5; i++) session.record({ ret: 20_000 + i })
  session.setFreeMessages(Number.POSITIVE_INFINITY)
  session.requests.onWritable()
  assert.equal(session.isWritableWanted(), false)
  session.record({ ret: 30_000 })
  assert.deepEqual(toldBy(session.sent), [
    ...Array(1 + MAX_QUEUED).keys(),
    'lost 50',
    20_000,
    20_001,
    20_002,
    'lost 2',
    30_000,
  ])
  assert.equal(session.charged(), 0)
  assert.deepEqual(session.request({ kind: 'unsubscribe', id: 1 }), { unsubscribed: 1, lost: 52 })
  assert.equal(session.subscribers.size, 0)
})

test('a failure after a gap is told after the gap, and a reply after both', () => {
  const session = createRequests('own user')
  session.request(trace)
  session.setFreeMessages(0)
  for (let i = 0; i < MAX_QUEUED + 3; i++) session.record({})
  session.requests.handle({ ...newRequest(), text: '{"kind":"capture"}' }, [])
  session.setFreeMessages(MAX_QUEUED)
  session.requests.onWritable()
  session.sent.length = 0
  session.record({ failure: {} } as unknown as Partial<TraceRecord>)
  session.setFreeMessages(Number.POSITIVE_INFINITY)
  session.requests.onWritable()
  const [gap, reply, failure] = session.sent.map(text => JSON.parse(text) as unknown)
  assert.deepEqual([gap, reply], [{ id: 1, lost: 3 }, { captureError: null }])
  assert.ok('failure' in (failure as { change: object }).change)
})

test('queued records are bounded in bytes, and charged to the tool until they are sent or the session ends', () => {
  const call = { classId: 1, call: 2, message: 'A'.repeat(900_000), answer: '' }
  const fill = (memoryBytes?: number) => {
    const session = createRequests('own user', {}, memoryBytes)
    session.request(trace)
    session.setFreeMessages(0)
    for (let ret = 0; ret < 10; ret++) session.record({ ret, call })
    return session
  }
  const slow = fill()
  assert.ok(slow.charged() > 7_000_000 && slow.charged() <= MAX_QUEUED_BYTES, `${slow.charged()} bytes`)
  slow.setFreeMessages(Number.POSITIVE_INFINITY)
  slow.requests.onWritable()
  assert.deepEqual([toldBy(slow.sent), slow.charged()], [[0, 1, 2, 3, 'lost 6'], 0])
  const poor = fill(2_000_000)
  assert.ok(poor.charged() <= 2_000_000)
  poor.close()
  assert.equal(poor.charged(), 0)
})

test('the subscriptions of all sessions have a limit', () => {
  const { request } = createRequests('own user', { subscriptions: createLimit('subscriptions', 2) })
  const subscribe = (): ToolReply => request({ kind: 'subscribe', topic: 'trace' })
  assert.deepEqual([subscribe(), subscribe()], [{ subscribed: 1 }, { subscribed: 2 }])
  assert.match(JSON.stringify(subscribe()), /subscribe trace: 2 subscriptions are in use, of 2; user \d+ has the most/)
  assert.deepEqual(request({ kind: 'unsubscribe', id: 1 }), { unsubscribed: 1, lost: 0 })
  assert.deepEqual(subscribe(), { subscribed: 3 })
})

test('subscriptions of a session have gaps of their own', () => {
  const session = createRequests('own user')
  session.request(trace)
  session.request(trace)
  session.setFreeMessages(0)
  for (let i = 0; i <= MAX_QUEUED / 2; i++) session.record({})
  session.setFreeMessages(Number.POSITIVE_INFINITY)
  session.requests.onWritable()
  assert.deepEqual(recordsOf(session.sent).slice(-2), [
    { id: 1, lost: 1 },
    { id: 2, lost: 1 },
  ])
})

test('a record that is too long for one message is sent in parts; a record of megabytes is sent without its call', () => {
  const session = createRequests('own user')
  session.request(trace)
  const call = (length: number) => ({ classId: 1, call: 2, message: 'A'.repeat(length), answer: '' })
  session.record({ ret: 5, call: call(70_000) })
  // In one of the two reasons, the first part ends within a surrogate pair.
  const faces = '\u{1f600}'.repeat(10_000)
  session.record({ ret: 6, reason: faces })
  session.record({ ret: 6, reason: `B${faces}` })
  session.record({ ret: 7, call: call(5_000_000) })
  assert.ok(session.sent.length >= 3 * 2 + 1, 'each of the three long records is sent in two parts or more')
  const received = recordsOf(session.sent).map(record => (record as { change: TraceRecord }).change)
  assert.deepEqual(
    received.map(({ ret, reason, call }) => [ret, reason?.length, call?.message.length]),
    [
      [5, undefined, 70_000],
      [6, 20_000, undefined],
      [6, 20_001, undefined],
      [7, 'too long to trace'.length, undefined],
    ],
  )
  assert.equal(received[1].reason, faces)
  assert.equal(received[2].reason, `B${faces}`)
})
