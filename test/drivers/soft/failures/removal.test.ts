/*
 * A soft device is removed during traffic (R23). Requests of its programs complete, and programs on other devices
 * continue.
 */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { invokeNow, unregister } from '../../../../src/core/index.ts'
import type { RxeDevice } from '../../../../src/drivers/rxe/device.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { Pd } from '../../../../src/spec/classes/pd.ts'
import { AsyncEventType } from '../../../../src/spec/enums.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import { errnoOf } from '../../../core/fixture.ts'
import { createRandomSource } from '../../../random/model/random.ts'
import {
  assertNothingLeft,
  connectQps,
  machine,
  makeChannel,
  makeCq,
  makeQp,
  modify,
  program,
  register,
  toInit,
} from '../../rxe/machine.ts'
import { completions, type End, exchange, makeEnd, sgeOf } from '../../rxe/pair.ts'
import { Flag, postReceive, postSend, Wr } from '../../rxe/provider.ts'

const { DEVICE_FATAL } = AsyncEventType.values
const { WR_FLUSH_ERR, RETRY_EXC_ERR } = WcStatus.values

/**
 * Posts equal numbers of sends (IDs from 0) and receives (IDs from 100) at both ends. Returns the number of sends at
 * one end.
 */
const postAll = (ends: readonly [End, End], random: ReturnType<typeof createRandomSource>): number => {
  const count = 8
  for (const [sender, receiver] of [ends, [ends[1], ends[0]]] as const)
    for (let i = 0; i < count; i++) {
      postReceive(receiver.qp.receive, BigInt(100 + i), [sgeOf(receiver.mr, 40000, 8000)])
      const opcode = random.pick([Wr.SEND, Wr.WRITE, Wr.READ])
      postSend(sender.qp.send, {
        opcode,
        id: BigInt(i),
        flags: Flag.SIGNALED,
        sges: [sgeOf(sender.mr, 0, 1 + random.int(8000))],
        remote: receiver.mr.address,
        rkey: receiver.mr.rkey,
      })
    }
  return count
}

const sortedIds = (polled: readonly { id: number }[]): number[] => polled.map(({ id }) => id).sort((a, b) => a - b)

/**
 * Removes the second of three devices after `turns` polls, and checks all programs. Returns the number of requests to
 * the removed device that exceeded their retries, 0 or 1.
 */
const removeDuringTraffic = (turns: number, seed: number): number => {
  const random = createRandomSource(seed)
  const m = machine(3)
  const pair = [makeEnd(m, 0), makeEnd(m, 1)] as const
  connectQps(pair[0].qp, pair[1].qp)
  const onRemovedDevice = [makeEnd(m, 1), makeEnd(m, 1)] as const
  connectQps(onRemovedDevice[0].qp, onRemovedDevice[1].qp)
  const others = [makeEnd(m, 0), makeEnd(m, 2)] as const
  connectQps(others[0].qp, others[1].qp)
  const count = postAll(pair, random)
  postAll(onRemovedDevice, random)
  for (let turn = 0; turn < turns; turn++) m.devices[turn % 3].poll(m.now)

  const [removed] = (m.devices as RxeDevice[]).splice(1, 1)
  unregister(removed.device)

  for (const { p, cq } of [pair[1], ...onRemovedDevice]) {
    const completed = completions(cq)
    assert.deepEqual(
      sortedIds(completed),
      [...Array(count).keys(), ...Array.from({ length: count }, (_, i) => 100 + i)],
      'every send and receive completes once',
    )
    for (const { status } of completed) assert.ok(status === 0 || status === WR_FLUSH_ERR, `status ${status}`)
    assert.equal(
      errnoOf(() => invokeNow(p.context, Pd, 'create', 0, {}, p.caller)),
      'EIO',
    )
    assert.deepEqual(
      p.async.take(99).map(({ type }) => type),
      [DEVICE_FATAL],
    )
    assert.ok(p.async.hasEnded)
  }

  // requests to the removed device exceed their retries
  m.settle()
  for (let ticks = 0; ticks < 200 && m.tick(); ticks++);
  const statuses = completions(pair[0].cq).map(({ status }) => status)
  assert.ok(
    statuses.every(status => [0, WR_FLUSH_ERR, RETRY_EXC_ERR].includes(status)),
    `${statuses}`,
  )
  const failed = statuses.filter(status => status === RETRY_EXC_ERR).length
  assert.ok(failed <= 1)
  exchange(m, others[0], others[1], seed)
  for (const { p } of [...pair, ...onRemovedDevice, ...others]) p.close()
  assertNothingLeft(
    m,
    [...pair, ...onRemovedDevice, ...others].map(({ p }) => p),
  )
  assert.equal(removed.device.memory.liveKeys, 0)
  return failed
}

describe('a device removed in the middle of an exchange', () => {
  for (const seed of [1, 2])
    it(`ends all requests of its users, whenever it is removed, seed ${seed}`, () => {
      let failed = 0
      for (let turns = 0; turns < 40; turns++) failed += removeDuringTraffic(turns, seed)
      assert.ok(failed > 0, 'no request to the removed device was in flight')
    })

  it('wakes programs that wait for completions', () => {
    const m = machine(1)
    const p = program(m)
    const { fd, queue } = makeChannel(p)
    const cq = makeCq(p, 15, fd)
    const qp = makeQp(p, cq)
    modify(qp, toInit())
    const mr = register(p, 4096)
    postReceive(qp.receive, 1n, [{ address: mr.address, length: 64, lkey: mr.lkey }])
    invokeNow(p.context, Cq, 'reqNotify', cq.handle, { solicitedOnly: 0 }, p.caller)
    let wakeUps = 0
    queue.end = () => {
      wakeUps++
    }
    unregister(m.devices[0].device)
    assert.equal(wakeUps, 1)
  })
})
