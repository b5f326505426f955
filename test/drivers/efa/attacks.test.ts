/*
 * Programs and peers that do what they should not, and work that waits while its parts are destroyed.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { emptyRequest } from '../../../src/drivers/efa/requests.ts'
import { Opcode, packetBytes, putHeaders } from '../../../src/drivers/efa/srd/packets.ts'
import { createNumbers } from '../../../src/drivers/efa/state.ts'
import { EfaOperation, EfaStatus } from '../../../src/spec/drivers/efa-queues.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { completionsOf } from '../machine.ts'
import { type Completion, ipv4, type Machine, machine, type Program, program, QKEY } from './machine.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation

const sendOf = (id: number, ah: number, qpn: number) => ({
  id,
  operation: SEND as number,
  ah,
  qpn,
  offset: 0,
  length: 8,
})

/** Passes `microseconds`. */
const pass = (m: Machine, microseconds: number): void => {
  const until = m.time.now + microseconds
  while (m.time.now < until) {
    m.time.now += 500
    for (const device of m.devices) device.poll(m.time.now)
  }
}

for (const [name, fault] of [
  ['direct', ''],
  ['packets', 'drop=0'],
] as const)
  describe(name, () => {
    it('one receive for two SENDs that wait: the other waits on', () => {
      const m = machine(2, fault)
      const [a, b] = [program(m, 0), program(m, 1)]
      const ah = a.handleOf(1)
      for (let id = 0; id < 3; id++) a.post(sendOf(id, ah, b.qpn))
      pass(m, 5000)
      b.receive(1, 0, 64)
      assert.equal(completionsOf(m, a, 1).length, 1)
      assert.deepEqual(a.poll(), [])
      for (const id of [2, 3]) b.receive(id, 0, 64)
      assert.equal(completionsOf(m, a, 2).length, 2)
    })

    it('a SEND without any retry completes once', () => {
      const m = machine(2, fault)
      const [a, b] = [program(m, 0, { rnrRetry: 0 }), program(m, 1)]
      a.post(sendOf(1, a.handleOf(1), b.qpn))
      assert.equal(completionsOf(m, a, 1)[0]!.status, EfaStatus.NOT_READY)
      a.modify({ state: QpState.values.ERR })
      assert.deepEqual(a.poll(), [])
    })

    it('requests that ended leave nothing behind', () => {
      const m = machine(2, fault)
      const [a, b, c] = [program(m, 0, { rnrRetry: 1 }), program(m, 1), program(m, 1)]
      const ah = a.handleOf(1)
      for (let id = 0; id < 50; id++) {
        a.post(sendOf(id, ah, b.qpn))
        assert.equal(completionsOf(m, a, 1)[0]!.status, EfaStatus.NOT_READY)
      }
      assert.equal(b.state.waiters.size, 0)
      // while one waits, others end
      const endless = program(m, 0)
      const other = endless.handleOf(1)
      endless.post(sendOf(0, other, b.qpn))
      for (let id = 1; id < 50; id++) {
        c.receive(id, 0, 64)
        endless.post(sendOf(id, other, c.qpn))
        completionsOf(m, endless, 1)
      }
      assert.equal(endless.state.ended.size, 0)
      assert.equal(endless.state.active.size, 1)
    })

    it('a SEND that waits goes to its destination, though its address handle is destroyed', () => {
      const m = machine(3, fault)
      const [a, b, c] = [program(m, 0), program(m, 1), program(m, 2)]
      const old = a.handle(1)
      a.post(sendOf(1, old.number, b.qpn))
      pass(m, 2000)
      old.destroy()
      a.handle(2)
      c.receive(5, 0, 64)
      pass(m, 20_000)
      assert.deepEqual([c.poll(), a.poll()], [[], []])
      b.receive(6, 0, 64)
      assert.equal(completionsOf(m, a, 1)[0]!.status, EfaStatus.OK)
      assert.equal(b.poll().length, 1)
    })
  })

it('a program that rings without end while its receives are flushed does not hold the device', () => {
  const m = machine(1)
  const a = program(m, 0)
  a.modify({ state: QpState.values.ERR })
  const queue = a.state.receive!
  let taken = queue.taken
  let reads = 0
  // as another thread would: there is always one more
  Object.defineProperty(queue, 'taken', {
    get: () => taken,
    set(value: number) {
      taken = value
      assert.ok(++reads < 1000, 'the flush has no end')
      a.ringReceives(taken + 10)
    },
  })
  a.ringReceives(10)
  m.devices[0]!.poll(m.time.now)
  assert.ok(reads > 0)
})

it('a long WRITE whose receive another message has taken waits as a SEND does', () => {
  const m = machine(1)
  const bytes = 5 << 20
  const [a, b] = [program(m, 0, { bytes, rnrRetry: 5 }), program(m, 0, { bytes })]
  const ah = a.handleOf(0)
  b.handleOf(0)
  b.receive(1, 0, 64)
  const remote = { address: b.address, rkey: b.region.rkey }
  a.post({ id: 1, operation: RDMA_WRITE, ah, qpn: b.qpn, offset: 0, length: bytes, imm: 1, remote })
  m.devices[0]!.poll(m.time.now)
  a.post(sendOf(2, ah, b.qpn))
  assert.equal(completionsOf(m, a, 1)[0]!.id, 2)
  for (let i = 0; i < 100; i++) m.devices[0]!.poll(m.time.now)
  assert.deepEqual(a.poll(), [])
  b.receive(2, 0, 64)
  assert.equal(completionsOf(m, a, 1)[0]!.status, EfaStatus.OK)
})

/** A port whose owner writes packets by hand. */
const peerPort = (m: Machine, one: Program) => {
  const port = m.link.attach()
  port.addAddress?.(ipv4(9))
  const flow = port.openFlow({
    source: ipv4(9),
    destination: ipv4(1),
    sourcePort: 4791,
    trafficClass: 0,
    hopLimit: 64,
    flowLabel: 0,
  })
  return (opcode: number, sourceQpn: number, change: object, psn = 0, epoch = 5): void => {
    const request = {
      ...emptyRequest({ ...one.state, qpn: sourceQpn }),
      destQpn: one.qpn,
      qkey: QKEY,
      ...change,
    }
    const bytes = packetBytes(opcode, 16)
    const at = port.reserve(bytes)
    putHeaders(port.arena.view, at, opcode, request, epoch, psn, 0, 16)
    port.commit(at, bytes, 1, bytes, flow)
    port.flush()
    m.devices[0]!.poll(m.time.now)
  }
}

it('data of READs that nobody has sent makes no state', () => {
  const m = machine(1)
  const a = program(m, 0)
  const send = peerPort(m, a)
  for (let qpn = 1; qpn < 200; qpn++) send(Opcode.READ_DATA, qpn, { message: 7, length: 16 })
  assert.equal(a.state.sources.size, 0)
})

it('a peer that changes its mind about ranges beyond 64 bits reaches nothing', () => {
  const m = machine(1)
  const a = program(m, 0)
  a.handleOf(8)
  const send = peerPort(m, a)
  const { rkey } = a.region
  const [lo, hi] = [a.address >>> 0, Math.floor(a.address / 2 ** 32)]
  const ranges = [
    { remoteHi: 0xffff_ffff, remoteLo: 0xffff_fff8, length: 16 },
    { remoteHi: hi, remoteLo: lo, length: 0xffff_ffff },
    { remoteHi: hi, remoteLo: lo, length: 8 },
    { remoteHi: (hi - 1) >>> 0, remoteLo: lo, length: 16 },
  ]
  for (const [psn, range] of ranges.entries()) send(Opcode.WRITE, 3, { ...range, rkey, message: psn }, psn)
  assert.equal(a.state.sources.size, 1)
  assert.deepEqual(new Set(a.bytes), new Set([0]))
  assert.equal((m.devices[0]!.counters!().hardware as Record<string, number>).rdma_write_recv_bytes, 0)
})

it('destinations without unacknowledged packets have no window', () => {
  const m = machine(2, 'drop=0')
  const [a, b] = [program(m, 0), program(m, 1)]
  const ah = a.handleOf(1)
  for (let id = 0; id < 200; id++) a.post(sendOf(id, ah, b.qpn + 1 + id))
  for (const { status } of completionsOf(m, a, 200)) assert.equal(status, EfaStatus.BAD_DESTINATION)
  m.devices[0]!.poll(m.time.now)
  assert.equal(a.state.pairs.size, 200)
  for (const { requests } of a.state.pairs.values()) assert.equal(requests.length, 0)
})

it('many long READs end, though the last begins late', () => {
  const m = machine(2, 'drop=0')
  const [a, b] = [program(m, 0), program(m, 1)]
  const ah = a.handleOf(1)
  b.handleOf(0)
  const remote = { address: b.address, rkey: b.region.rkey }
  for (let id = 0; id < 250; id++)
    a.post({ id, operation: RDMA_READ, ah, qpn: b.qpn, offset: 0, length: 1 << 18, remote })
  const seen: Completion[] = []
  for (let turn = 0; turn < 100_000 && seen.length < 250; turn++) {
    m.time.now += 100_000
    for (const device of m.devices) device.poll(m.time.now)
    seen.push(...a.poll())
  }
  assert.deepEqual(
    seen.filter(({ status }) => status !== EfaStatus.OK),
    [],
  )
  assert.equal(seen.length, 250)
})

it('SENDs that wait for receives block neither a READ nor a WRITE to the same queue pair', () => {
  const m = machine(2, 'drop=0')
  const [a, b] = [program(m, 0), program(m, 1)]
  const ah = a.handleOf(1)
  b.handleOf(0)
  const remote = { address: b.address, rkey: b.region.rkey }
  for (let id = 0; id < 600; id++) {
    a.post(sendOf(id, ah, b.qpn))
    if (id % 200 === 199) pass(m, 2000)
  }
  a.post({ id: 1001, operation: RDMA_WRITE, ah, qpn: b.qpn, offset: 0, length: 50_000, remote })
  a.post({ id: 1002, operation: RDMA_READ, ah, qpn: b.qpn, offset: 0, length: 50_000, remote })
  const ended = completionsOf(m, a, 2)
  assert.deepEqual(ended.map(({ id, status }) => [id, status]).sort(), [
    [1001, EfaStatus.OK],
    [1002, EfaStatus.OK],
  ])
  // each SEND arrives once
  const seen: Completion[] = []
  for (let id = 0; id < 600; id++) {
    b.receive(id, 0, 64)
    if (id % 200 === 199) m.runUntil(() => seen.push(...b.poll()) >= id + 1)
  }
  assert.equal(completionsOf(m, a, 600).length, 600)
  pass(m, 10_000)
  assert.deepEqual([b.poll().length, seen.length], [0, 600])
})

it('a SEND that was refused is taken once, though its packets and the refusals are lost, duplicated and late', () => {
  for (let seed = 1; seed < 8; seed++) {
    const m = machine(2, `drop=0.2,dup=0.3,reorder=0.3,seed=${seed}`)
    const [a, b] = [program(m, 0), program(m, 1)]
    const ah = a.handleOf(1)
    for (let id = 0; id < 20; id++) a.post(sendOf(id, ah, b.qpn))
    pass(m, 3000)
    const seen: Completion[] = []
    for (let id = 0; id < 40; id++) {
      b.receive(id, 0, 64)
      pass(m, 700)
      seen.push(...b.poll())
    }
    completionsOf(m, a, 20)
    pass(m, 500_000)
    assert.equal(seen.length + b.poll().length, 20, `seed ${seed}`)
  }
})

it('a late packet of a queue pair before its RESET does not make packets of today new again', () => {
  const m = machine(1)
  const a = program(m, 0)
  a.handleOf(8)
  for (let id = 0; id < 8; id++) a.receive(id, 0, 64)
  const send = peerPort(m, a)
  send(Opcode.SEND, 3, { message: 1, length: 16 }, 0)
  send(Opcode.SEND, 3, { message: 1, length: 16 }, 0, 6)
  send(Opcode.SEND, 3, { message: 2, length: 16 }, 1)
  send(Opcode.SEND, 3, { message: 1, length: 16 }, 0, 6)
  assert.equal(a.poll().length, 2)
})

it('queue pairs forget peers that they have not heard of for long', () => {
  const m = machine(2, 'drop=0')
  const [a, b] = [program(m, 0), program(m, 1)]
  const ah = a.handleOf(1)
  b.handleOf(0)
  const one = (id: number): void => {
    b.receive(id, 0, 64)
    a.post(sendOf(id, ah, b.qpn))
    assert.equal(completionsOf(m, a, 1)[0]!.status, EfaStatus.OK)
    assert.equal(completionsOf(m, b, 1)[0]!.id, id)
  }
  for (let id = 0; id < 20; id++) one(id)
  assert.deepEqual([a.state.pairs.size, b.state.sources.size], [1, 1])
  m.time.now += 120_000_000
  for (const device of m.devices) device.poll(m.time.now)
  assert.deepEqual([a.state.pairs.size, b.state.sources.size], [0, 0])
  for (let id = 20; id < 40; id++) one(id)
})

it('a send is not given up while the port has no room for its packets', () => {
  const m = machine(2, 'drop=0')
  const [a, b] = [program(m, 0), program(m, 1)]
  b.receive(1, 0, 64)
  a.post(sendOf(1, a.handleOf(1), b.qpn))
  m.devices[0]!.poll(m.time.now)
  m.full.add(0)
  for (let i = 0; i < 20_000; i++) {
    m.time.now += 1000
    m.devices[0]!.poll(m.time.now)
  }
  assert.deepEqual(a.poll(), [])
  m.full.delete(0)
  assert.equal(completionsOf(m, a, 1)[0]!.status, EfaStatus.OK)
})

it('numbers of queue pairs, completion queues and address handles are found without a search', () => {
  const used = createNumbers(1, 60_000)
  const taken = Array.from({ length: 59_999 }, () => used.take())
  assert.deepEqual([new Set(taken).size, used.take()], [59_999, undefined])
  used.give(30_000)
  used.give(7)
  // one that was given back is taken as late as possible
  assert.deepEqual([used.take(), used.take(), used.take()], [30_000, 7, undefined])
  const start = createNumbers(1, 100)
  const first = start.take()!
  start.give(first)
  assert.notEqual(start.take(), first)
  const reused = createNumbers(1, 100, true)
  reused.give(reused.take()!)
  assert.deepEqual([reused.take(), reused.take()], [1, 2])
})

it('a SEND that failed for good takes one receive, though its refusal is lost and its packet comes again', () => {
  const m = machine(1)
  const a = program(m, 0)
  const send = peerPort(m, a)
  a.receive(1, 0, 4)
  for (const id of [2, 3]) a.receive(id, 1024, 64)
  for (let again = 0; again < 3; again++) send(Opcode.SEND, 3, { message: 1, length: 16 }, 0)
  assert.deepEqual(
    a.poll().map(({ id, status }) => [id, status]),
    [[1, EfaStatus.LOCAL_LENGTH]],
  )
  send(Opcode.SEND, 3, { message: 2, length: 16 }, 1)
  assert.deepEqual(
    a.poll().map(({ id, status }) => [id, status]),
    [[2, EfaStatus.OK]],
  )
})

it('a WRITE that was refused does not write later, when its packet comes again and its region exists', () => {
  const m = machine(1)
  const a = program(m, 0)
  const send = peerPort(m, a)
  const range = {
    rkey: a.region.rkey,
    remoteHi: Math.floor(a.address / 2 ** 32),
    remoteLo: a.address >>> 0,
    length: 16,
  }
  // no handle of the initiator
  send(Opcode.WRITE, 3, { ...range, message: 1 }, 0)
  a.handleOf(8)
  const written = () => (m.devices[0]!.counters!().hardware as Record<string, number>).rdma_write_recv_bytes
  send(Opcode.WRITE, 3, { ...range, message: 1 }, 0)
  assert.equal(written(), 0)
  send(Opcode.WRITE, 3, { ...range, message: 2 }, 1)
  assert.equal(written(), 16)
})
