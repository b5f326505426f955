/*
 * The search for armings of completion queues: what a poll costs with many queues, and that rounds miss none.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { ScanScope } from '../../../src/core/driver-contract.ts'
import { Armings } from '../../../src/drivers/mlx5/armings.ts'

const QUEUES = 10_000

const setUp = () => {
  const armed = new Set<number>()
  const looks: number[] = []
  const armings = new Armings<number>(cq => {
    looks.push(cq)
    return armed.delete(cq)
  })
  for (let cq = 0; cq < QUEUES; cq++) armings.add(cq)
  return { armed, looks, armings }
}

/** Ends a round that has begun; the number of slices. */
const finish = (armings: Armings<number>): number => {
  let slices = 0
  for (; armings.isUnfinished(); slices++) armings.take(ScanScope.CONTINUE)
  return slices
}

it('a poll looks at few of many queues', () => {
  const { looks, armings } = setUp()
  for (const scope of [ScanScope.USED, ScanScope.CHANGED, ScanScope.BEGIN, ScanScope.CONTINUE]) {
    looks.length = 0
    assert.equal(armings.take(scope), false)
    assert.ok(looks.length > 0 && looks.length <= 256, `${looks.length}`)
  }
})

it('polls find each arming in turn, and a round finds all', () => {
  const { armed, looks, armings } = setUp()
  armed.add(0).add(9999).add(5000)
  for (let polls = 0; polls < QUEUES / 256; polls++) armings.take(ScanScope.USED)
  assert.deepEqual([...armed], [])
  looks.length = 0
  armings.take(ScanScope.BEGIN)
  assert.ok(finish(armings) > 10)
  assert.equal(new Set(looks).size, QUEUES)
  looks.length = 0
  armings.take()
  assert.deepEqual([looks.length, armings.isUnfinished()], [QUEUES, false])
})

it('queues that end during a round hide no others', () => {
  const { looks, armings } = setUp()
  armings.take(ScanScope.BEGIN)
  for (let cq = 0; cq < 300; cq++) armings.delete(cq)
  armings.delete(12_345)
  finish(armings)
  const seen = new Set(looks)
  for (let cq = 300; cq < QUEUES; cq++) assert.ok(seen.has(cq), `${cq}`)
  looks.length = 0
  for (let cq = 300; cq < QUEUES; cq++) armings.delete(cq)
  assert.equal(armings.take(), false)
  assert.deepEqual([looks, armings.isUnfinished()], [[], false])
})
