/*
 * Firmware commands (DEVX) of mlx5 devices: what Linux refuses, what the firmware refuses, objects of commands as objects
 * of the model, and user memory.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { closeContext } from '../../../src/core/index.ts'
import { handlers } from '../../../src/drivers/mlx5/commands/table.ts'
import { contextOf } from '../../../src/drivers/mlx5/context.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { DevxUmem } from '../../../src/spec/drivers/mlx5-devx.ts'
import { Commands, commandHeader, type FirmwareCommand } from '../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { cmdHcaCap } from '../../../src/spec/drivers/mlx5-firmware/device.ts'
import { decodeFields, encodeFields } from '../../../src/uapi/firmware/fields.ts'
import { assertErrno, assertRefused, commandBytes, withCommands } from './firmware.ts'
import { machine, program } from './machine.ts'

const oneProgram = () => {
  const m = machine(1)
  const a = program(m, 0)
  return { m, a, firmware: withCommands(a) }
}

describe('a firmware command', () => {
  it('has a handler if the table has its structs', () => {
    const supported = Object.entries<FirmwareCommand>(Commands).filter(([, command]) => command.in !== undefined)
    assert.deepEqual(
      supported.filter(([, { opcode }]) => !handlers.has(opcode)).map(([name]) => name),
      [],
    )
    assert.equal(supported.length, handlers.size)
  })

  it('is refused by Linux in a context without DEVX, but for the queries that all may make', () => {
    const { a, firmware } = oneProgram()
    delete contextOf(a.context).uid
    firmware.general(Commands.QUERY_HCA_CAP, {}, { opMod: 1 })
    assertErrno(() => firmware.create(Commands.ALLOC_PD, {}), 'EINVAL', /without MLX5DV_CONTEXT_FLAGS_DEVX/)
    assertErrno(() => firmware.umem(), 'EINVAL', /without MLX5DV_CONTEXT_FLAGS_DEVX/)
  })

  it('is refused by Linux for another method', () => {
    const { firmware } = oneProgram()
    const pd = commandBytes(Commands.ALLOC_PD, {})
    assertErrno(() => firmware.give('command', pd, 16), 'EINVAL', /ALLOC_PD: .* one of create/)
    assertErrno(() => firmware.createBytes(commandBytes(Commands.NOP, {}), 16), 'EINVAL', /NOP: .* one of general/)
    assertErrno(() => firmware.createBytes(encodeFields(commandHeader, { opcode: 0x999 }), 16), 'EINVAL', /0x999/)
  })

  it('that the device does not have is refused by the firmware', () => {
    const { firmware } = oneProgram()
    const absent = (opcode: number) => encodeFields(commandHeader, { opcode })
    assertRefused(
      () => firmware.createBytes(absent(Commands.CREATE_XRQ.opcode), 16),
      'unsupportedCommand',
      /CREATE_XRQ/,
    )
    assertRefused(() => firmware.give('command', absent(0xb55), 16), 'unsupportedCommand', /0xb55/)
    assertRefused(() => firmware.general(Commands.QUERY_HCA_CAP, {}, { opMod: 0x7e }), 'unsupportedModifier', /0x3f/)
  })

  it('has an output of the right length', () => {
    const { firmware } = oneProgram()
    assertRefused(() => firmware.general(Commands.QUERY_HCA_CAP, {}, { outBytes: 100 }), 'shortOutput', /100 bytes/)
    assert.equal(firmware.give('command', commandBytes(Commands.QUERY_HCA_CAP, {}), 4112).length, 4112)
  })

  it('reaches no object by another number', () => {
    const { a, firmware } = oneProgram()
    const query = commandBytes(Commands.QUERY_CQ, { cqn: 5 })
    assertErrno(() => firmware.give('query', query, 16, a.cq.object), 'EINVAL', /not of the object/)
    assertErrno(() => firmware.give('query', query, 16, a.pd), 'EINVAL')
    assertErrno(() => firmware.give('query', query, 16, 999), 'ENOENT')
  })
})

describe('domains of commands', () => {
  it('are objects of the model that no call reaches by a handle', () => {
    const { a, m, firmware } = oneProgram()
    const { device } = m.devices[0]!
    const before = device.counts.pd!
    const { handle, out } = firmware.create(Commands.ALLOC_PD, {})
    assert.equal(device.counts.pd, before + 1)
    const inner = a.context.handles.slots.find(object => object?.class.name === 'pd' && object.handle !== a.pd)!
    assert.equal((inner.state as { number: number }).number, out.pd)
    assertErrno(() => a.call(Pd, 'destroy', inner.handle, {}), 'ENOENT')
    firmware.destroy(handle)
    assert.equal(device.counts.pd, before)
    assert.equal(device.counts.devx_obj, 0)
  })

  it('of all kinds have numbers, and leave nothing', () => {
    const { a, m, firmware } = oneProgram()
    const made = [Commands.ALLOC_PD, Commands.ALLOC_XRCD, Commands.ALLOC_TRANSPORT_DOMAIN].map(command => {
      const { handle, out } = firmware.create(command, {})
      assert.notEqual(Object.values(out)[0], 0)
      return handle
    })
    for (const handle of made) firmware.destroy(handle)
    firmware.create(Commands.ALLOC_XRCD, {})
    closeContext(a.context)
    assert.equal(m.devices[0]!.device.counts.xrcd, 0)
    assert.equal(m.devices[0]!.device.counts.devx_obj, 0)
  })
})

describe('user memory', () => {
  it('is registered in the range and with the rights that the program has', () => {
    const { a, firmware } = oneProgram()
    const { handle, id } = firmware.umem()
    assert.notEqual(id, 0)
    firmware.deregister(handle)
    const create = (args: object) => () => a.call(DevxUmem, 'create', 0, { address: a.address, length: 4096n, ...args })
    assertErrno(create({ length: 0n }), 'EINVAL', /empty/)
    assertErrno(create({ length: (1n << 64n) - 1n }), 'EINVAL', /end of the address space/)
    assertErrno(create({ address: 1n << 40n }), 'EFAULT', /not all mapped/)
    assertErrno(create({ access: 2 }), 'EINVAL', /without LOCAL_WRITE/)
    assertErrno(create({ pageSizes: 1n << 21n }), 'EINVAL', /0x1000/)
    assertErrno(create({ file: 3 }), 'EOPNOTSUPP')
  })
})

describe('capabilities', () => {
  it('are those of the device', () => {
    const { firmware } = oneProgram()
    const { capability } = firmware.general(Commands.QUERY_HCA_CAP, {}, { opMod: 1 })
    const { log_max_msg, roce, cqe_version } = decodeFields(cmdHcaCap, capability)
    assert.deepEqual({ log_max_msg, roce, cqe_version }, { log_max_msg: 30, roce: 1, cqe_version: 1 })
  })
})
