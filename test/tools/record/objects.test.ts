/*
 * The objects of a session, and which queue pairs are connected.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { QpState } from '../../../src/spec/enums.ts'
import type { ObjectEvent } from '../../../src/spec/session-events.ts'
import { connectionsOf, SessionObjects } from '../../../src/tools/record/objects.ts'

const qp = (
  objects: SessionObjects,
  object: number,
  number: number,
  values: Record<string, unknown>,
  more: Partial<ObjectEvent & { time: number }> = {},
): void =>
  objects.add({
    kind: 'object',
    time: 1,
    change: 'changed',
    object,
    device: 0,
    context: 1,
    program: undefined,
    class: 'rc_qp',
    handle: object,
    number,
    method: 'modify',
    why: 'call',
    stack: [],
    details: { values },
    ...more,
  })

describe('objects of a session', () => {
  it('connect queue pairs with the one that points back, if several have its number', () => {
    const objects = new SessionObjects()
    qp(objects, 1, 0x11, { destQpn: 0x12 })
    qp(objects, 2, 0x12, { destQpn: 0x99 })
    qp(objects, 3, 0x12, { destQpn: 0x11 })
    qp(objects, 4, 0x20, {})
    assert.deepEqual(
      connectionsOf(objects).map(({ left, right, rightQpn }) => [left.object.id, right?.object.id, rightQpn]),
      [
        [1, 3, 0x12],
        [2, undefined, 0x99],
        [4, undefined, undefined],
      ],
    )
  })

  it('are named by the number that a program has: of a queue pair, of a descriptor, otherwise the handle', () => {
    const objects = new SessionObjects()
    qp(objects, 1, 0x11, {})
    qp(objects, 2, 0, {}, { class: 'mr', handle: 3 })
    qp(objects, 3, 0, {}, { class: 'async_fd', handle: 1 << 30 })
    const names = () => [1, 2, 3].map(id => objects.objectName(id))
    assert.deepEqual(names(), ['QP 0x11', 'mr 3', `async_fd ${1 << 30}`])
    objects.setDescriptor(3, 4)
    objects.setDescriptor(99, 5)
    assert.deepEqual(names(), ['QP 0x11', 'mr 3', 'async_fd fd 4'])
  })

  it('keep the states, the first PSN that is sent, and the end', () => {
    const objects = new SessionObjects()
    qp(objects, 1, 0x11, { state: QpState.values.RTR, rqPsn: 5, destQpn: 0x12, address: { dgid: 'fe80' } })
    qp(objects, 1, 0, { state: QpState.values.RTS, sqPsn: 9 }, { time: 3 })
    qp(objects, 1, 0, {}, { change: 'exists', time: 4 })
    qp(objects, 1, 0, {}, { change: 'destroyed', time: 7 })
    const { states, sqPsn, qpn, peerQpn, peerGid, object, type } = objects.queuePairs.get(1)!
    assert.deepEqual(states, [
      { time: 1, state: 'RESET' },
      { time: 1, state: 'RTR' },
      { time: 3, state: 'RTS' },
    ])
    assert.deepEqual([sqPsn, qpn, peerQpn, peerGid, type], [9, 0x11, 0x12, 'fe80', 'RC'])
    assert.deepEqual([object.destroyed, object.history.length], [7, 3])
    assert.equal(objects.objectName(1), 'QP 0x11')
  })

  it('know devices that were renamed, removed and added again', () => {
    const objects = new SessionObjects()
    const facts = () => [...objects.devices.values()].map(({ name, isRemoved }) => [name, isRemoved])
    const change = (change: 'added' | 'removed' | 'renamed', name: string): void =>
      objects.addDevice({ kind: 'device', change, device: 0, name, address: '' })
    change('added', 'a')
    change('renamed', 'b')
    assert.deepEqual(facts(), [['b', false]])
    change('removed', 'b')
    assert.deepEqual(facts(), [['b', true]])
    change('added', 'c')
    assert.deepEqual([facts(), objects.deviceName(0), objects.deviceName(-1)], [[['c', false]], 'c', 'rdma_cm'])
  })
})
