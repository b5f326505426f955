/*
 * The library's words for classes that no driver here has (R8, R9), on a device whose driver has them
 * (whole-driver.ts): made, asked, changed, used, refused where they are wrong, and gone at the end.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Classes } from '../../src/spec/classes.ts'
import { FlowSpecFlags, FlowSpecType, QpState } from '../../src/spec/enums.ts'
import { flowFilters } from '../../src/spec/linux/flow.ts'
import { type FlowHeaderName, flowHeaders } from '../../src/spec/wire/flow-headers.ts'
import { createNetwork, type Device, GSI_QKEY, open } from '../../src/verbs/index.ts'
import { line, next, nextEvent } from './ends.ts'
import { refuses, untyped } from './mistakes.ts'
import { createWholeDevice } from './whole-driver.ts'

const openWhole = (): Promise<Device> => {
  const network = createNetwork()
  network.addDevice(core => createWholeDevice(core, 'whole0'))
  return open({ network, device: 'whole0' })
}

/** A device of that driver, a domain, memory and a completion queue; whatever the test makes is gone at its end. */
const place = async (body: (on: ReturnType<typeof placeOn>) => Promise<void> | void): Promise<void> => {
  await using device = await openWhole()
  await body(placeOn(device))
}
const placeOn = (device: Device) => {
  const pd = device.pd()
  const buffer = new Uint8Array(1024)
  return { device, pd, buffer, mr: pd.register(buffer), cq: device.cq({ entries: 7 }) }
}

/** A frame to 00:…:last, of a type, with these bytes. */
const frameTo = (last: number, etherType: number, ...payload: number[]): Uint8Array =>
  Uint8Array.of(0, 0, 0, 0, 0, last, 2, 2, 2, 2, 2, 2, etherType >> 8, etherType, ...payload)

test('raw packets: a frame goes to the queue pair whose rule it matches, and is counted', () =>
  place(async ({ device, pd, buffer, mr, cq }) => {
    const sender = pd.rawPacketQp({ sendCq: cq, maxInlineData: 128 })
    assert.equal(sender.state, 'RESET')
    sender.activate()
    assert.equal(sender.state, 'RTS')
    using counters = device.counterSet()
    using receiver = pd.rawPacketQp({ sendCq: cq, active: { port: 1 } })
    const rule = receiver.flow({ specs: [{ header: 'ETH', match: { etherType: 0x0800 } }], counters })
    receiver.receive(mr.slice(0, 100), 7)

    sender.send(frameTo(1, 0x0806, 1), { id: 1 })
    sender.send(frameTo(1, 0x0800, 9), { id: 2 })
    assert.equal(await line(cq), '1 SEND')
    assert.equal(await line(cq), '2 SEND')
    assert.deepEqual([(await next(cq)).bytes, buffer[14]], [15, 9])
    assert.deepEqual(counters.read(), [1n, 15n, 0n])
    assert.deepEqual(counters.read({ cached: true }), [1n, 15n, 1n])
    assert.throws(() => counters.close(), { code: 'EBUSY', call: 'counters.destroy' })
    assert.throws(() => receiver.close(), { code: 'EBUSY', call: 'raw_packet_qp.destroy' })

    rule.close()
    sender.send(frameTo(1, 0x0800, 9), { id: 3 })
    assert.equal(await line(cq), '3 SEND')
    assert.deepEqual(counters.read(), [1n, 15n, 0n])
    sender.modify({ state: QpState.values.RESET })
    assert.equal(sender.query().state, QpState.values.RESET)
    refuses('qp.activate', /"ports" is unknown/, () => sender.activate(untyped({ ports: 1 })))
    refuses('raw_packet_qp.create', /active: "prot" is unknown/, () =>
      pd.rawPacketQp({ sendCq: cq, active: untyped({ prot: 1 }) }),
    )
  }))

test('work queues: a table of them takes what a queue pair receives', () =>
  place(async ({ device, pd, buffer, mr, cq }) => {
    const queues = [0, 1].map(() => pd.wq({ cq, flags: { scatterFcs: true } }))
    const [even, odd] = queues
    assert.equal(even.state, 'RESET')
    assert.equal(even.query().flags, 2)
    even.modify({ state: 'RDY', from: 'RESET', flags: { scatterFcs: false, delayDrop: true } })
    assert.equal(even.state, 'RDY')
    assert.equal(even.query().flags, 4)
    assert.throws(() => even.modify({ state: 'RDY', from: 'RESET' }), {
      code: 'EINVAL',
      call: 'wq.modify',
      attribute: 'curState',
    })
    refuses('wq.modify', /state "READY": it is RESET, RDY, ERR/, () => even.modify({ state: untyped('READY') }))
    refuses('wq.create', /flags: "vlan" is unknown/, () => pd.wq({ cq, flags: untyped({ vlan: true }) }))

    const table = device.rwqIndTable(queues)
    assert.deepEqual(table.query().queues, [{ wq: even.handle }, { wq: odd.handle }])
    refuses('rwq_ind_table.create', /3 queues: it is 1, 2, 4/, () => device.rwqIndTable([even, odd, odd]))
    refuses('rwq_ind_table.create', /queues\[0\] is closed/, () => {
      const gone = pd.wq({ cq })
      gone.close()
      device.rwqIndTable([gone])
    })
    assert.throws(() => even.close(), { code: 'EBUSY', call: 'wq.destroy' })

    const qp = pd.rawPacketQp({ sendCq: cq, table, active: true, maxInlineData: 128 })
    assert.throws(() => qp.receive(), { code: 'ENOMEM', call: 'qp.receive', reason: 'there is no receive queue' })
    qp.flow()
    for (const [i, queue] of queues.entries()) queue.receive(mr.slice(100 * i, 100), 10 + i)
    assert.deepEqual([odd.pending, odd.maxWr], [1, 7])
    qp.send(frameTo(5, 0x0800, 42), { signaled: false })
    await next(cq)
    assert.equal(await line(cq), '11 RECV')
    assert.equal(buffer[114], 42)
    assert.deepEqual([even.pending, odd.pending], [1, 0])
    assert.throws(() => table.close(), { code: 'EBUSY', call: 'rwq_ind_table.destroy' })
  }))

test('rules: headers are said by the names of their fields, and asked for as they are', () =>
  place(({ pd, cq }) => {
    const qp = pd.udQp({ sendCq: cq })
    const rule = qp.flow({
      type: 'SNIFFER',
      priority: 3,
      dontTrap: true,
      specs: [
        { header: 'ETH', match: { destination: '02:00:00:00:00:0a' } },
        { header: 'IPV4', match: { source: '10.1.2.3', protocol: 17 }, mask: { source: '255.255.0.0' }, inner: true },
        { header: 'UDP', match: { destinationPort: 4791 } },
      ],
    })
    const { type, priority, port, specs } = rule.query()
    assert.deepEqual([type, priority, port], [3, 3, 1])
    const [eth, ip, udp] = specs
    assert.deepEqual([...eth.value.subarray(0, 7)], [2, 0, 0, 0, 0, 10, 0])
    assert.deepEqual([...eth.mask.subarray(0, 7)], [255, 255, 255, 255, 255, 255, 0])
    assert.deepEqual([ip.type, ip.flags], [FlowSpecType.values.IPV4, FlowSpecFlags.values.INNER])
    assert.deepEqual([...ip.value.subarray(0, 10)], [10, 1, 2, 3, 0, 0, 0, 0, 17, 0])
    assert.deepEqual([...ip.mask.subarray(0, 10)], [255, 255, 0, 0, 0, 0, 0, 0, 255, 0])
    assert.deepEqual([...udp.value.subarray(0, 4)], [0x12, 0xb7, 0, 0])
    const wrong: readonly [RegExp, unknown][] = [
      [/specs\[0\]\.header "IPX": it is ETH/, { header: 'IPX' }],
      [/specs\[0\]\.match: "port" is unknown/, { header: 'UDP', match: { port: 1 } }],
      [/match\.destinationPort: 65536 is no number of 16 bits/, { header: 'UDP', match: { destinationPort: 65536 } }],
      [/match\.flowLabel: 1048576 is no number of 20 bits/, { header: 'IPV6', match: { flowLabel: 1 << 20 } }],
      [/match\.source: "::1" is not an IPv4 address/, { header: 'IPV4', match: { source: '::1' } }],
      [/match\.source: 7 is not an IPv6 address/, { header: 'IPV6', match: { source: 7 } }],
      [/match\.source: "1:2" is not an address of the link/, { header: 'ETH', match: { source: '1:2' } }],
      [/mask\.tos: there is no value in match\.tos/, { header: 'IPV4', mask: { tos: 1 } }],
      [/specs\[0\] says nothing/, {}],
      [/specs\[0\]: 5 is no object/, 5],
    ]
    for (const [reason, spec] of wrong) refuses('flow.create', reason, () => qp.flow({ specs: [untyped(spec)] }))
    refuses('flow.create', /"prio" is unknown/, () => qp.flow(untyped({ prio: 1 })))
    assert.throws(() => qp.flow({ specs: [{ drop: true }] }), { code: 'EOPNOTSUPP', reason: /type 4097/ })
    assert.throws(() => qp.flow({ specs: [{ tag: 5 }] }), { code: 'EOPNOTSUPP', reason: /type 4096/ })
  }))

test('all bits of a field count that are the packet’s, unless a mask says which', () =>
  place(({ pd, cq }) => {
    const qp = pd.rawPacketQp({ sendCq: cq })
    const specs = [{ header: 'VXLAN_TUNNEL', match: { tunnelId: 5 } } as const]
    const { value, mask } = qp.flow({ specs }).query().specs[0]
    assert.deepEqual([...value.subarray(0, 4), ...mask.subarray(0, 5)], [0, 0, 0, 5, 0, 255, 255, 255, 0])
    for (const [header, fields] of Object.entries(flowHeaders)) {
      const filter = flowFilters[FlowSpecType.values[header as FlowHeaderName]]
      for (const { at, bytes } of Object.values(fields)) assert.ok(at + bytes <= (filter?.bytes ?? 4), header)
    }
  }))

test('memory of the device is registered as a region, all of it or a part', () =>
  place(({ device, pd }) => {
    const dm = device.dm({ length: 4096, alignment: 64 })
    assert.deepEqual(dm.query(), { length: 4096n, alignment: 6 })
    using all = pd.deviceRegion(dm)
    using part = pd.deviceRegion(dm, { offset: 1024, length: 16 })
    assert.deepEqual([all.length, all.address, part.length, part.address], [4096, 0n, 16, 1024n])
    assert.throws(() => dm.close(), { code: 'EBUSY', call: 'dm.destroy' })
    refuses('dm.create', /length 0 is no number of bytes/, () => device.dm({ length: 0 }))
    refuses('dm.create', /alignment 48 is no power of two/, () => device.dm({ length: 64, alignment: 48 }))
    refuses('dm.create', /options is missing/, () => device.dm(untyped(undefined)))
    assert.throws(() => device.dm({ length: 1 << 20 }), { code: 'ENOMEM', class: 'dm', method: 'create' })
  }))

test('tags are added, removed and counted; operations complete', () =>
  place(async ({ pd, mr, cq }) => {
    const srq = pd.tagSrq({ cq, maxTags: 8, maxWr: 4 })
    const tag = srq.addTag(0x1234n, mr.slice(0, 64), { id: 1, mask: 0xffn, receiveId: 2, unexpected: 3 })
    const { id, opcodeName, bytes } = await next(cq)
    assert.deepEqual([id, opcodeName, bytes], [1, 'TM_ADD', 64])
    srq.addTag(1n, [mr.slice(0, 8), mr.slice(8, 8)])
    await next(cq)
    srq.removeTag(tag, { id: 2 })
    assert.equal(await line(cq), '2 TM_DEL')
    assert.throws(() => srq.removeTag(tag), { code: 'ENOENT', call: 'tm_srq.tagDel' })
    srq.syncTags(9)
    assert.deepEqual([(await next(cq)).bytes], [9])
    srq.receive(mr.slice(0, 64), 5)
    assert.equal(srq.pending, 1)
    srq.setLimit(2)
    assert.equal(srq.query().limit, 2)
    refuses('tm_srq.tagAdd', /tag 5 is no bigint/, () => srq.addTag(untyped(5), mr.slice()))
    refuses('tm_srq.tagAdd', /the buffer is missing/, () => srq.addTag(5n, untyped(undefined)))
    refuses('tm_srq.tagAdd', /"unexpectd" is unknown/, () => srq.addTag(5n, mr.slice(), untyped({ unexpectd: 1 })))
    refuses('tm_srq.tagSync', /"unexpected" is unknown/, () => srq.syncTags(5, untyped({ unexpected: 1 })))
    srq.close()
    refuses('srq.receive', /the queue is closed/, () => srq.receive())
  }))

test('queue pairs of subnet management, general services and reliable datagrams get ready to send', () =>
  place(async ({ pd, cq }) => {
    const ah = pd.addressHandle({ gid: '10.0.0.1' })
    for (const qp of [pd.smiQp({ sendCq: cq, active: true }), pd.gsiQp({ sendCq: cq })]) {
      qp.activate({ pkeyIndex: 1 })
      assert.equal(qp.state, 'RTS')
      qp.send(Uint8Array.of(1), { ah, qpn: 0, qkey: GSI_QKEY }, { id: 4 })
      assert.equal(await line(cq), '4 SEND')
      refuses('qp.send', /the receiver is missing/, () => qp.send(Uint8Array.of(1), untyped(undefined)))
    }
    const rd = pd.rdQp({ sendCq: cq, active: { qkey: 7, access: { remoteRead: true }, minRnrTimer: 1 } })
    assert.equal(rd.state, 'RTS')
    rd.receive()
    rd.modify({ state: QpState.values.RESET })
    rd.activate()
    refuses('qp.activate', /access: "remoteRed" is unknown/, () =>
      rd.activate({ access: untyped({ remoteRed: true }) }),
    )
  }))

test('a chain makes them all, one of the other', () =>
  place(({ device, cq }) => {
    const made = device.chain(chain => {
      const pd = chain.pd()
      const dm = chain.dm({ length: 64 })
      const counters = chain.counterSet()
      const raw = chain.rawPacketQp(pd, { sendCq: cq, active: true })
      return {
        wq: chain.wq(pd, { cq }),
        region: chain.deviceRegion(pd, dm, { length: 64 }),
        raw,
        rule: chain.flow(raw, { specs: [{ header: 'ETH', match: { etherType: 1 } }], counters }),
        srq: chain.tagSrq(pd, { cq, maxTags: 1 }),
        managers: [chain.smiQp(pd, { sendCq: cq }), chain.gsiQp(pd, { sendCq: cq })],
        rd: chain.rdQp(pd, { sendCq: cq }),
      }
    })
    assert.equal(made.raw.state, 'RTS')
    assert.equal(made.rule.query().specs.length, 1)
    assert.equal(made.region.length, 64)
    const table = device.chain(chain => chain.rwqIndTable([made.wq]))
    assert.equal(table.tableNumber, 3)
    refuses('rwq_ind_table.create', /queues\[0\] is not made yet/, () =>
      device.chain(chain => chain.rwqIndTable([chain.wq(chain.pd(), { cq })])),
    )
    refuses('flow.create', /qp is no queue pair of raw packets/, () =>
      device.chain(chain => chain.flow(chain.rdQp(chain.pd(), { sendCq: cq }))),
    )
  }))

test('events of work queues and queue pairs of these types come to an event queue', () =>
  place(({ device, pd, cq }) => {
    const events = device.eventQueue()
    const sources = [
      pd.wq({ cq }),
      pd.tagSrq({ cq, maxTags: 1 }),
      pd.rawPacketQp({ sendCq: cq }),
      pd.rdQp({ sendCq: cq }),
    ]
    for (const source of sources) events.attach(source)
    assert.deepEqual(events.attached(), sources)
    events.close()
  }))

test('a work queue tells of its end by an event', () =>
  place(async ({ device, pd, mr, cq }) => {
    const event = nextEvent(device)
    const queue = pd.wq({ cq })
    const qp = pd.rawPacketQp({ sendCq: cq, table: device.rwqIndTable([queue]), active: true, maxInlineData: 128 })
    qp.flow()
    queue.receive(mr.slice(0, 4))
    qp.send(frameTo(1, 0x0800, 1))
    const { type, source } = (await event) ?? {}
    assert.deepEqual([type, source === queue, queue.state], ['WQ_FATAL', true, 'ERR'])
    queue.modify({ state: 'RESET' })
    assert.deepEqual([queue.state, queue.pending], ['RESET', 0])
  }))

test('all of it is gone with its context', async () => {
  const network = createNetwork()
  network.addDevice(core => createWholeDevice(core, 'whole0'))
  {
    await using device = await open({ network, device: 'whole0' })
    const { pd, cq } = placeOn(device)
    pd.rawPacketQp({ sendCq: cq, table: device.rwqIndTable([pd.wq({ cq })]), active: true }).flow({
      counters: device.counterSet(),
    })
    pd.deviceRegion(device.dm({ length: 8 }))
  }
  await using again = await open({ network, device: 'whole0' })
  assert.deepEqual(again.handles(Classes.flow, Classes.wq, Classes.dm, Classes.raw_packet_qp), [])
})
