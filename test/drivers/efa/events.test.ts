/*
 * Completion queues of EFA with events: none is lost, whatever the device sees of the stores to the doorbell, and a
 * queue that is full says so.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Armed } from '../../../src/core/model.ts'
import { EfaOperation } from '../../../src/spec/drivers/efa-queues.ts'
import { machine, program } from './machine.ts'

const { SEND } = EfaOperation
const send = (id: number, ah: number, qpn: number) => ({ id, operation: SEND, ah, qpn, offset: 0, length: 8 })

it('an event follows, though a poll hid the arming and the next send came with it', () => {
  const m = machine(1)
  const a = program(m, 0, { channel: true })
  const ah = a.handleOf(0)
  for (let id = 0; id < 10; id++) a.receive(id, 0, 64)
  a.arm()
  m.devices[0]!.poll(0)
  for (let id = 0; id < 10; id++) {
    // the device sees only the last of the stores to the doorbell, and the send with it
    a.post(send(id, ah, a.qpn))
    m.devices[0]!.poll(0)
    assert.ok(a.takeEvent(), `send ${id}`)
    a.arm()
    assert.equal(a.poll().length, 2)
  }
})

it('a CQ that the program has armed is known as armed, as waits ask', () => {
  const m = machine(1)
  const a = program(m, 0, { channel: true })
  const armed = (): (Armed | undefined)[] =>
    [...m.devices[0]!.device.contexts].flatMap(({ handles }) =>
      handles.slots.flatMap(object => (object?.class.name === 'cq' ? [object.events?.armed] : [])),
    )
  assert.deepEqual(armed(), [Armed.NO])
  a.arm()
  m.devices[0]!.poll(0)
  assert.deepEqual(armed(), [Armed.NEXT])
})

it('a program that answers events without end gets no more events than completions and answers', () => {
  const m = machine(1)
  const a = program(m, 0, { channel: true })
  a.receive(1, 0, 64)
  a.post(send(1, a.handleOf(0), a.qpn))
  a.arm()
  m.devices[0]!.poll(0)
  let events = 0
  for (; a.takeEvent(); events++) {
    assert.ok(events < 4)
    a.poll()
    a.arm()
    for (let turn = 0; turn < 10; turn++) m.devices[0]!.poll(0)
  }
  assert.ok(events >= 1)
})

it('values that no library stores to the doorbell of a CQ are harmless', () => {
  const m = machine(1)
  const a = program(m, 0, { channel: true, entries: 16 })
  const ah = a.handleOf(0)
  for (let turn = 0; turn < 1000; turn++) {
    a.ringCq((turn * 0x9e37_79b1) >>> 0)
    a.receive(turn & 0xffff, 0, 64)
    a.post(send(turn & 0xffff, ah, a.qpn))
    m.devices[0]!.poll(turn)
    a.takeEvent()
  }
})
