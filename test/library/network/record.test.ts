/*
 * Recordings of devices in this process (`open({ record })`, `createNetwork({ record })`).
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { createNetwork, open } from '../../../src/library/index.ts'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { bytesSource, openSession } from '../../../src/tools/record/reader.ts'
import { callLine } from '../../../src/tools/trace/calls.ts'
import { libraryUrl } from '../../paths.ts'
import { runUserdma, temporaryFolder } from '../../system/programs.ts'

const eventsIn = async (file: string): Promise<SessionEvent[]> => {
  const events: SessionEvent[] = []
  for await (const event of (await openSession(bytesSource(readFileSync(file)))).eventsIn()) events.push(event)
  return events
}

const waitsIn = (events: readonly SessionEvent[]) => events.flatMap(event => (event.kind === 'wait' ? [event] : []))

const kindsOf = (events: readonly SessionEvent[]): Set<string> => new Set(events.map(({ kind }) => kind))

test('a recorded device has its calls, objects, requests and packets in the file when it is closed', async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const device = await open({ record: file })
  const pd = device.pd()
  const source = pd.register(new Uint8Array(64))
  const target = pd.register(new Uint8Array(64), { remoteWrite: true })
  const [from, to] = [await pd.rcQp(), await pd.rcQp()]
  await Promise.all([from.connect(to.endpoint), to.connect(from.endpoint)])
  await from.write(source.slice(), target.remote())
  await device.close()
  assert.equal(statSync(file).mode & 0o777, 0o600)
  const events = await eventsIn(file)
  const kinds = kindsOf(events)
  for (const kind of ['device', 'object', 'call', 'posted', 'completed', 'packets', 'end'])
    assert.ok(kinds.has(kind), kind)
  const calls = events.flatMap(event => (event.kind === 'call' ? [event] : []))
  const create = calls.find(({ call }) => /rc_qp\.create/.test(callLine(call)))
  assert.match(callLine(create!.call), /rc_qp\.create\(.*\) = 0 \{.*qpNum/)
  assert.ok(create!.stack.some(frame => frame.includes('record.test')))
  assert.ok(events.some(event => event.kind === 'object' && event.object === create!.object))
})

test('a recording has the windows of queue pairs: they shrink after a loss, and grow again', async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const network = createNetwork({ record: file, fault: 'opcode=RC_WRITE_*,drop=20%,seed=1' })
  const device = await open({ network })
  const pd = device.pd()
  const source = pd.register(new Uint8Array(2 ** 16))
  const target = pd.register(new Uint8Array(2 ** 16), { remoteWrite: true })
  const [from, to] = [await pd.rcQp(), await pd.rcQp()]
  await Promise.all([from.connect(to.endpoint), to.connect(from.endpoint)])
  for (let i = 0; i < 5; i++) await from.write(source.slice(), target.remote())
  await device.close()
  const events = await eventsIn(file)
  const [post] = events.flatMap(event => (event.kind === 'posted' ? [event.request] : []))
  const windows = events.flatMap(event =>
    event.kind === 'counters' && event.object === post.owner ? [event.values.window] : [],
  )
  const [first] = windows
  assert.ok(first >= 2 ** 16, String(windows))
  assert.ok(Math.min(...windows) < first, String(windows))
  assert.ok(
    windows.every((window, i) => window !== windows[i - 1]),
    String(windows),
  )
})

test('a recorded network is in the file when the process ends', t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const script = `
    import { createNetwork, open } from '${libraryUrl}'
    const record = { file: ${JSON.stringify(file)}, limit: 2 ** 20 }
    const links = { hosts: ['a', 'b'], links: [{ between: ['a', 'b'] }] }
    const network = createNetwork({ record, clock: 'virtual', links })
    const device = await open({ network })
    device.pd()
    process.exit(3)`
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.equal(status, 3, stderr)
  return eventsIn(file).then(events => {
    const kinds = kindsOf(events)
    for (const kind of ['device', 'object', 'call', 'link', 'end']) assert.ok(kinds.has(kind), kind)
  })
})

test('a recording has what the program waited for, and `userdma explain --slow` says it first', async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const network = createNetwork({ record: file, clock: 'virtual' })
  const device = await open({ network })
  const pd = device.pd()
  const buffer = pd.register(new Uint8Array(64), { localWrite: true })
  const [from, to] = [await pd.rcQp(), await pd.rcQp()]
  await Promise.all([from.connect(to.endpoint), to.connect(from.endpoint)])
  const both = [from, to].map(qp => assert.rejects(qp.receive(buffer.slice())))
  await network.sleep(3000)
  await device.close()
  await Promise.all(both)
  // The file is that of the network, which stays.
  await network.sleep(1000)
  const events = await eventsIn(file)
  const waits = waitsIn(events)
  assert.deepEqual(
    waits.map(({ change, facts: { id, device, pid, command } }) => [change, id, device, pid, command]),
    ['began', 'closed'].map(change => [change, 'both-receive', 'rxe0', 1, 'node']),
  )
  const qps = events.flatMap(event =>
    event.kind === 'object' && event.class === 'rc_qp' && event.change === 'created' ? [event.object] : [],
  )
  assert.deepEqual(new Set(waits[0].facts.objects), new Set(qps))
  const { stdout } = await runUserdma(t, ['explain', '--slow', file])
  assert.match(
    stdout,
    /^what programs wait for\n {2}node \(1\) waited until it ended, for 3\.00 s, at rxe0: QP .* both have receives posted, and neither/,
  )
})

test('a recording has a send that waited without limit for a receive, and that it came', async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const network = createNetwork({ record: file, clock: 'virtual' })
  const device = await open({ network })
  const pd = device.pd()
  const source = pd.register(new Uint8Array(64))
  const target = pd.register(new Uint8Array(64), { localWrite: true })
  const [from, to] = [await pd.rcQp(), await pd.rcQp()]
  await Promise.all([from.connect(to.endpoint), to.connect(from.endpoint)])
  const sent = from.send(source.slice())
  await network.sleep(2500)
  await Promise.all([to.receive(target.slice()), sent])
  await network.sleep(1000)
  const waits = waitsIn(await eventsIn(file))
  await device.close()
  assert.deepEqual(
    waits.map(({ change, facts: { id } }) => [change, id]),
    ['began', 'over'].map(change => [change, 'endless-rnr']),
  )
  assert.match(waits[0].facts.text, /SEND wr_id \d+ waits without limit for a receive .*has posted 0 receives/)
})

test('in real time too a recording has what the program waits for, and that it lasted until the device was closed', async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const device = await open({ record: file })
  const pd = device.pd()
  const source = pd.register(new Uint8Array(64))
  const [from, to] = [await pd.rcQp(), await pd.rcQp()]
  await Promise.all([from.connect(to.endpoint), to.connect(from.endpoint)])
  const sent = assert.rejects(from.send(source.slice()))
  while (waitsIn(await eventsIn(file)).length === 0) await setTimeout(50)
  await device.close()
  await sent
  const waits = waitsIn(await eventsIn(file))
  assert.deepEqual(
    new Set(waits.map(({ change, facts: { id, pid } }) => `${change} ${id} ${pid}`)),
    new Set(['began', 'closed'].map(change => `${change} endless-rnr ${process.pid}`)),
  )
})

test('a recorded program that never waits for a second has no waits in its recording', async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const network = createNetwork({ record: file, clock: 'virtual' })
  const device = await open({ network })
  const pd = device.pd()
  const source = pd.register(new Uint8Array(64))
  const target = pd.register(new Uint8Array(64), { localWrite: true })
  const [from, to] = [await pd.rcQp(), await pd.rcQp()]
  await Promise.all([from.connect(to.endpoint), to.connect(from.endpoint)])
  for (let i = 0; i < 20; i++) {
    const received = to.receive(target.slice())
    await from.send(source.slice())
    await received
    await network.sleep(300)
  }
  await device.close()
  assert.ok(!kindsOf(await eventsIn(file)).has('wait'))
})

test('a recording of a network with links has each direction of each link, as `network.stats()` says it', async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const network = createNetwork({
    record: file,
    clock: 'virtual',
    links: {
      hosts: ['client', 'server', 'idle'],
      switches: ['middle'],
      links: [
        { between: ['client', 'middle'], rate: '10gbit', delay: '3us', queue: '1mb', loss: '5%' },
        { between: ['middle', 'server'] },
        { between: ['middle', 'idle'] },
      ],
    },
  })
  const [client, server] = [await open({ network }), await open({ network })]
  const [clientPd, serverPd] = [client.pd(), server.pd()]
  const [from, to] = [await clientPd.rcQp(), await serverPd.rcQp()]
  await Promise.all([from.connect(to.endpoint), to.connect(from.endpoint)])
  const target = serverPd.register(new Uint8Array(2 ** 17), { remoteWrite: true })
  await from.write(clientPd.register(new Uint8Array(2 ** 17)).slice(), target.remote())
  await network.sleep(1500)
  const stats = network.stats().links
  const links = (await eventsIn(file)).flatMap(event => (event.kind === 'link' ? [event] : []))
  await Promise.all([client.close(), server.close()])
  assert.deepEqual(
    links.map(one => [one.link, one.from, one.to, one.packets, one.bytes, one.marked, one.lost, one.maxQueue]),
    stats.map((one, i) => [i, one.from, one.to, one.packets, one.bytes, one.marked, one.lost.chance, one.queue.max]),
  )
  assert.ok(links[0].packets > 0 && links[0].lost > 0 && links[0].utilization > 0)
  assert.deepEqual([links[0].rate, links[0].delay, links[0].capacity], [1e10, 3, 1e6])
  assert.deepEqual([links[4].from, links[4].to, links[4].packets], ['middle', 'idle', 0])
})

test('findings about a checked device are in its recording', async t => {
  const file = join(temporaryFolder(t), 'session.udr')
  const device = await open({ record: file, check: { onFinding: () => {}, failOn: 'never' } })
  const pd = device.pd()
  const mr = pd.register(new Uint8Array(64))
  assert.throws(() => pd.close())
  mr.close()
  await device.close()
  const findings = (await eventsIn(file)).flatMap(event => (event.kind === 'finding' ? [event.finding.id] : []))
  assert.ok(findings.includes('destroy-busy'), String(findings))
})

test('wrong options of a recording are refused with a sentence', async t => {
  const folder = temporaryFolder(t)
  await assert.rejects(open({ record: folder }), /EISDIR/)
  await assert.rejects(open({ record: { file: join(folder, 'a'), payload: 5000 } }), /record\.payload 5000/)
  await assert.rejects(open({ record: { file: join(folder, 'a'), limit: 5 } }), /record\.limit 5/)
  await assert.rejects(open({ network: createNetwork(), record: 'a' }), /record "a" is for a new network/)
  await assert.rejects(open({ socket: '/nowhere', record: 'a' }), /run the daemon with --record/)
})
