/*
 * Peers, regions, contexts and devices are destroyed during traffic, or rings are filled with garbage.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { closeContext, invokeNow, unregister } from '../../../../src/core/index.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { RingHeader } from '../../../../src/spec/drivers/mapped-rings.ts'
import { AsyncEventType } from '../../../../src/spec/enums.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import { assertNothingLeft, connectQps, modify, Qps, query } from '../../rxe/machine.ts'
import { completions, makeEnd, pair, pattern, REGION_BYTES, sgeOf } from '../../rxe/pair.ts'
import { postReceive, postSend, Wr } from '../../rxe/provider.ts'

const { SUCCESS, REM_ACCESS_ERR, RETRY_EXC_ERR } = WcStatus.values

type Pair = ReturnType<typeof pair>
/** Lets timers expire until `a` has a completion. */
const tickUntilCompleted = ({ m, a }: Pick<Pair, 'm' | 'a'>): void => {
  for (let i = 0; i < 20 && a.cq.ring.producer === 0; i++) assert.ok(m.tick(), 'no timer runs')
}

test('packets to a destroyed peer are dropped, and the sender exceeds its retries', () => {
  const { m, a, b } = pair()
  postSend(a.qp.send, {
    opcode: Wr.WRITE,
    id: 1n,
    sges: [sgeOf(a.mr, 0, 30000)],
    remote: b.mr.address,
    rkey: b.mr.rkey,
  })
  // the WRITE is in flight
  m.devices[0].poll(m.now)
  invokeNow(b.p.context, RcQp, 'destroy', b.qp.handle, {}, b.p.caller)
  m.settle()
  assert.deepEqual(completions(a.cq), [])
  tickUntilCompleted({ m, a })
  assert.deepEqual(
    completions(a.cq).map(({ id, status }) => [id, status]),
    [[1, RETRY_EXC_ERR]],
  )
  assert.ok(b.mr.bytes.every(byte => byte === 0))
  assert.equal(m.devices[0].nextTimeout(), Number.POSITIVE_INFINITY, 'no timer is left')
})

test('a region deregistered during a transfer is not accessed', () => {
  const { m, a, b } = pair()
  pattern(a.mr.bytes, 1)
  postSend(a.qp.send, {
    opcode: Wr.WRITE,
    id: 1n,
    sges: [sgeOf(a.mr, 0, REGION_BYTES)],
    remote: b.mr.address,
    rkey: b.mr.rkey,
  })
  m.devices[0].poll(m.now)
  invokeNow(b.p.context, Mr, 'destroy', b.mr.handle, {}, b.p.caller)
  m.settle()
  assert.deepEqual(
    completions(a.cq).map(({ status }) => status),
    [REM_ACCESS_ERR],
  )
  assert.ok(b.mr.bytes.every(byte => byte === 0))
})

test('contexts close with requests in flight, and nothing is left', () => {
  const { m, a, b } = pair()
  const [c, d] = [makeEnd(m, 0), makeEnd(m, 1)]
  connectQps(c.qp, d.qp)
  for (const { qp, mr } of [a, b, c, d])
    for (let i = 0; i < 10; i++) {
      postReceive(qp.receive, 1n, [sgeOf(mr, 0, 100)])
      postSend(qp.send, { opcode: Wr.READ, id: 2n, sges: [sgeOf(mr, 0, 9000)], remote: mr.address, rkey: mr.rkey })
      postSend(qp.send, { opcode: Wr.SEND, id: 2n, sges: [sgeOf(mr, 0, 9000)] })
    }
  for (const device of m.devices) device.poll(m.now)
  a.p.close()
  m.devices[1].poll(m.now)
  d.p.close()
  m.devices[0].poll(m.now)
  b.p.close()
  c.p.close()
  while (m.tick()) {}
  assertNothingLeft(
    m,
    [a, b, c, d].map(({ p }) => p),
  )
})

test('a closed context is destroyed in steps; its queue pairs receive nothing from the first step on', () => {
  const { m, a, b } = pair()
  const jobs: Iterator<unknown>[] = []
  Object.assign(m.core, { runJob: (job: Iterator<unknown>) => jobs.push(job) })
  postReceive(b.qp.receive, 1n, [sgeOf(b.mr, 0, 100)])
  b.p.close()
  assert.throws(() => query(b.qp), { code: 'EIO' })
  const [job] = jobs
  assert.ok(job)
  job.next()
  assert.ok(b.p.context.handles.count > 0, 'objects of the context still exist')
  pattern(a.mr.bytes, 1)
  postSend(a.qp.send, { opcode: Wr.SEND, id: 1n, sges: [sgeOf(a.mr, 0, 100)] })
  m.settle()
  assert.deepEqual(completions(a.cq), [])
  assert.ok(b.mr.bytes.every(byte => byte === 0))
  while (job.next().done !== true) m.settle()
  assert.equal(b.p.context.handles.count, 0)
  tickUntilCompleted({ m, a })
  assert.deepEqual(
    completions(a.cq).map(({ status }) => status),
    [RETRY_EXC_ERR],
  )
})

test('if a device is removed while a context closes, each object is destroyed once, and all callbacks are called', () => {
  const { m, a, b } = pair()
  const jobs: Iterator<unknown>[] = []
  Object.assign(m.core, { runJob: (job: Iterator<unknown>) => jobs.push(job) })
  const reported: string[] = []
  closeContext(b.p.context, () => reported.push('context'))
  jobs[0].next()
  unregister(m.devices[1].device, () => reported.push('device'))
  closeContext(b.p.context, () => reported.push('second close'))
  let unfinished = jobs
  while (unfinished.length > 0) unfinished = unfinished.filter(job => job.next().done !== true)
  assert.deepEqual(reported, ['context', 'second close', 'device'])
  closeContext(b.p.context, () => reported.push('close after the end'))
  assert.deepEqual(reported.slice(3), ['close after the end'])
  assert.equal(b.p.rings.live.size, 0)
  assert.equal(m.core.faults, 0)
  a.p.close()
  const closing = jobs.at(-1)!
  while (closing.next().done !== true);
  m.settle()
  assert.deepEqual(m.link.stat(), { ports: 1, runs: 0, smallRuns: 0, flows: 0 })
})

test('when a device is removed its contexts are closed, and the other device continues', () => {
  const { m, a, b } = pair()
  postSend(a.qp.send, { opcode: Wr.SEND, id: 1n })
  m.devices[0].poll(m.now)
  unregister(m.devices[1].device)
  assert.equal(b.p.async.queue.at(-1)?.type, AsyncEventType.values.DEVICE_FATAL)
  assert.equal(b.p.rings.live.size, 0)
  assert.throws(() => query(b.qp), { code: 'EIO' })
  tickUntilCompleted({ m, a })
  assert.deepEqual(
    completions(a.cq).map(({ status }) => status),
    [RETRY_EXC_ERR],
  )
  a.p.close()
  m.settle()
  assert.deepEqual(m.link.stat(), { ports: 1, runs: 0, smallRuns: 0, flows: 0 })
})

test('a program that fills its rings with garbage while they are processed affects no other program', () => {
  const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 })
  fc.assert(
    fc.property(
      fc.array(u32, { minLength: 50, maxLength: 300, size: 'max' }),
      fc.array(u32, { minLength: 1, maxLength: 12 }),
      (noise, steps) => {
        const { m, a, b } = pair()
        const hostile = [makeEnd(m, 0), makeEnd(m, 1)]
        connectQps(hostile[0].qp, hostile[1].qp)
        pattern(a.mr.bytes, 9)
        let written = 0
        for (const step of steps) {
          for (const { p, qp, cq } of hostile) {
            // everywhere but in the size of an element and the mask
            for (const { at, length, view } of p.rings.live)
              for (let i = RingHeader.INDEX_MASK + 4; i < length; i += 4 + (step % 24) * 4)
                view.setUint32(at + i, noise[written++ % noise.length], true)
            qp.send.producer = step
            qp.receive.producer = ~step
            cq.ring.consumer = step >>> 3
            if (query(qp).state === Qps.ERR) modify(qp, { state: Qps.RESET })
          }
          for (let i = 0; i < 3; i++) for (const device of m.devices) device.poll(m.now)
          m.now += 500
          const offset = (step % 1000) * 8
          postSend(a.qp.send, {
            opcode: Wr.WRITE,
            id: 1n,
            sges: [sgeOf(a.mr, offset, 5000)],
            remote: b.mr.address + offset,
            rkey: b.mr.rkey,
          })
          for (let i = 0; i < 400 && a.cq.ring.producer === a.cq.ring.consumer; i++) {
            for (const device of m.devices) device.poll(m.now)
            m.now += 100
          }
          assert.deepEqual(
            completions(a.cq).map(({ status }) => status),
            [SUCCESS],
          )
          assert.deepEqual(b.mr.bytes.subarray(offset, offset + 5000), a.mr.bytes.subarray(offset, offset + 5000))
        }
        for (const { p } of [...hostile, a, b]) p.close()
        while (m.tick()) {}
        assertNothingLeft(
          m,
          [a, b, ...hostile].map(({ p }) => p),
        )
      },
    ),
    { numRuns: 30 },
  )
})
