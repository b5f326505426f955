/*
 * Small objects of mlx5 devices that programs of mlx5dv make: doorbell pages for queues of VirtIO (VAR); and what a
 * port says of the switch that it is not in.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { PortClass } from '../../../src/spec/classes/device/port.ts'
import { querySwitchPort, Var } from '../../../src/spec/drivers/mlx5.ts'
import { objectClass } from '../../../src/spec/schema/schema.ts'
import { machine, program } from './machine.ts'

describe('a VAR', () => {
  it('is a page of its own, with a number of its own; both are free again after it', () => {
    const a = program(machine(1), 0)
    type Created = { offset: bigint; length: number; page: number }
    const create = (args = {}) => a.call<Created>(Var, 'create', 0, args)
    const all = [create(), create({ flags: 1 }), ...Array.from({ length: 1000 }, () => create())]
    assert.equal(new Set(all.map(({ out }) => out.offset)).size, all.length)
    assert.equal(new Set(all.map(({ out }) => out.page)).size, all.length)
    assert.ok(all.every(({ out: { length, page } }) => length === 4096 && page > 0))
    for (const { object } of all) a.call(Var, 'destroy', object, {})
    assert.throws(() => a.call(Var, 'destroy', all[0]!.object, {}), { code: 'ENOENT' })
  })
})

describe('a port', () => {
  it('has no values of a switch', () => {
    const a = program(machine(1), 0)
    const Port = objectClass('port', PortClass.id, { methods: { querySwitchPort } })
    assert.deepEqual(a.call<{ flags: bigint }>(Port, 'querySwitchPort', 1, {}).out, { flags: 0n })
    assert.throws(() => a.call(Port, 'querySwitchPort', 2, {}))
  })
})
