/*
 * Firmware commands (DEVX) of mlx5 devices: what Linux refuses, what the firmware refuses, objects of commands as
 * objects of the model, and user memory.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { macOf } from '../../../src/core/devices/identity.ts'
import { addHook, closeContext } from '../../../src/core/index.ts'
import { handlers } from '../../../src/drivers/mlx5/commands/table.ts'
import { contextOf } from '../../../src/drivers/mlx5/context.ts'
import type { Mlx5Soft } from '../../../src/drivers/mlx5/state.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { Devx, DevxAsyncCmdFd, DevxUmem } from '../../../src/spec/drivers/mlx5-devx.ts'
import {
  answerHeader,
  type CommandName,
  Commands,
  commandHeader,
  type FirmwareCommand,
} from '../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { avQpMapping, cmdHcaCap } from '../../../src/spec/drivers/mlx5-firmware/device.ts'
import { CallError } from '../../../src/spec/errno.ts'
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

describe('asynchronous queries', () => {
  const setUp = () => {
    const { a, firmware, m } = oneProgram()
    const pd = (a.context.handles.slots[a.pd]!.state as { number: number }).number
    const { handle, out } = firmware.create(Commands.CREATE_MKEY, {
      memory_key_mkey_entry: { access_mode_1_0: 1, qpn: 0xff_ffff, len: 64n, start_addr: a.address, pd },
      mkey_umem_id: firmware.umem().id,
    })
    a.call(DevxAsyncCmdFd, 'create', 0, {})
    const channel = [...m.core.descriptors.keys()].at(-1)!
    const input = commandBytes(Commands.QUERY_MKEY, { mkey_index: out.mkey_index })
    const query = (outputBytes: bigint, bytes = input) =>
      void a.call(Devx, 'queryAsync', 0, { handle, input: bytes, channel, outputBytes, wrId: 77n })
    const records = () =>
      m.core.descriptors
        .get(channel)!
        .sink.take(1000)
        .map(({ bytes }) => bytes)
    return { query, records, out }
  }

  it('answer by records of their channel', () => {
    const { query, records } = setUp()
    query(400n)
    const [record, ...others] = records()
    assert.deepEqual([record!.length, others.length], [408, 0])
    assert.equal(new DataView(record!.buffer).getBigUint64(0, true), 77n)
    assert.equal(decodeFields(Commands.QUERY_MKEY.out, record!.subarray(8)).memory_key_mkey_entry.len, 64n)
  })

  it('answer with the status of a refusal, and are refused by Linux as others are', () => {
    const { query, records, out } = setUp()
    query(100n)
    const { status, syndrome } = decodeFields(answerHeader, records()[0]!.subarray(8))
    assert.deepEqual([status, syndrome], [0x51, 0x10_0004])
    const other = commandBytes(Commands.QUERY_MKEY, { mkey_index: out.mkey_index + 1 })
    assertErrno(() => query(400n, other), 'EINVAL')
    assertErrno(() => query(15n), 'EINVAL', /15 bytes/)
    assert.deepEqual(records(), [])
  })

  it('have a MiB of unread answers', () => {
    const { query, records } = setUp()
    for (let i = 0; i < 16; i++) query(65_535n)
    assertErrno(() => query(65_535n), 'EAGAIN', /16 answers/)
    assert.equal(records().length, 16)
    query(65_535n)
  })
})

describe('queries of the device', () => {
  it('tell of port, addresses and adapter', () => {
    const { firmware, m } = oneProgram()
    const { device } = m.devices[0]!
    assert.equal(firmware.general(Commands.QUERY_LAG, {}).ctx.lag_state, 0)
    assert.equal(firmware.general(Commands.QUERY_ISSI, {}).current_issi, 1)
    assert.equal(firmware.general(Commands.QUERY_ADAPTER, {}).query_adapter_struct.ieee_vendor_id, 0x2c9)
    assert.equal(firmware.general(Commands.QUERY_VPORT_STATE, {}).state, 1)
    const { nic_vport_context } = firmware.general(Commands.QUERY_NIC_VPORT_CONTEXT, {})
    assert.equal(nic_vport_context.roce_en, 1)
    assert.deepEqual(nic_vport_context.permanent_address, macOf((device.state as Mlx5Soft).identity))
    for (const [index, entry] of device.ports[0]!.gids.entries.slice(0, 4).entries()) {
      const { roce_address } = firmware.general(Commands.QUERY_ROCE_ADDRESS, { roce_address_index: index })
      assert.deepEqual(roce_address.source_l3_address, entry!.gid)
      assert.equal(roce_address.roce_version, index % 2 === 0 ? 0 : 2)
    }
    assertRefused(() => firmware.general(Commands.QUERY_ROCE_ADDRESS, { roce_address_index: 60_000 }), 'noSuchIndex')
    assertRefused(() => firmware.general(Commands.QUERY_VPORT_STATE, { other_vport: 1 }), 'unsupportedFeature')
    assertRefused(() => firmware.general(Commands.QUERY_HCA_VPORT_CONTEXT, {}), 'unsupportedCommand')
  })

  it('know all kinds of capabilities', () => {
    const { firmware } = oneProgram()
    const { capability } = firmware.general(Commands.QUERY_HCA_CAP, {}, { opMod: (0xf << 1) | 1 })
    assert.deepEqual(capability, new Uint8Array(256))
    assertRefused(() => firmware.general(Commands.QUERY_HCA_CAP, { other_function: 1 }), 'unsupportedFeature')
  })
})

/** What each capability that is told promises: commands, or what verbs and requests have of it anyway. */
const promises: Readonly<Record<string, readonly CommandName[]>> = {
  log_max_cq_sz: ['CREATE_CQ'],
  log_max_cq: ['CREATE_CQ'],
  log_max_qp_sz: ['CREATE_QP'],
  log_max_qp: ['CREATE_QP'],
  log_max_srq_sz: ['CREATE_RMP'],
  log_max_srq: ['CREATE_RMP'],
  log_max_rmp: ['CREATE_RMP', 'MODIFY_RMP', 'QUERY_RMP'],
  log_max_pd: ['ALLOC_PD'],
  log_max_xrcd: ['ALLOC_XRCD'],
  log_max_transport_domain: ['ALLOC_TRANSPORT_DOMAIN'],
  log_max_mkey: ['CREATE_MKEY', 'QUERY_MKEY'],
  fixed_buffer_size: ['CREATE_MKEY'],
  log_max_klm_list_size: ['CREATE_MKEY'],
  relaxed_ordering_write: ['CREATE_MKEY'],
  relaxed_ordering_read: ['CREATE_MKEY'],
  dct: ['CREATE_DCT', 'QUERY_DCT'],
  hca_cap_2: ['QUERY_HCA_CAP'],
  // rules with matchers: matchers.test.ts
  nic_flow_table: [],
  flow_counter_bulk_alloc: ['ALLOC_FLOW_COUNTER', 'QUERY_FLOW_COUNTER'],
  log_max_tir: ['CREATE_TIR'],
  log_max_ra_req_dc: ['CREATE_DCT'],
  log_max_ra_res_dc: ['CREATE_DCT'],
  log_max_dci_stream_channels: ['CREATE_QP'],
  log_max_dci_errored_streams: ['CREATE_QP'],
  qpc_extension: ['RTS2RTS_QP'],
  sho: ['CREATE_PSV', 'CREATE_MKEY'],
  sigerr_cqe: ['CREATE_PSV'],
  sigerr_domain_and_sig_type: ['CREATE_PSV'],
  sig_block_4048: ['CREATE_PSV'],
  sig_crc32c: ['CREATE_PSV'],
  sig_crc64_xp10: ['CREATE_PSV'],
  drain_sigerr: ['INIT2INIT_QP', 'QUERY_QP'],
  rts2rts_qp_udp_sport: ['RTS2RTS_QP'],
  log_max_ra_req_qp: ['INIT2RTR_QP'],
  log_max_ra_res_qp: ['RTR2RTS_QP'],
  gid_table_size: ['QUERY_ROCE_ADDRESS'],
  roce: ['QUERY_ROCE_ADDRESS'],
  port_type: ['QUERY_NIC_VPORT_CONTEXT'],
  rc: ['CREATE_QP', 'RST2INIT_QP', 'INIT2RTR_QP', 'RTR2RTS_QP'],
  uc: ['CREATE_QP'],
  ud: ['CREATE_QP'],
  general_obj_types: ['CREATE_GENERAL_OBJECT'],
  // of work requests: memcpy.test.ts
  dma_mmo_sq: [],
  log_dma_mmo_max_size: [],
  // receives are taken in order
  dp_ordering_ooo_all_rc: [],
  dp_ordering_ooo_all_dc: [],
  dp_ordering_ooo_all_xrc: [],
  dp_ordering_ooo_all_uc: [],
  dp_ordering_ooo_all_ud: [],
  pg: [],
  log_max_eq: [],
  max_num_eqs: [],
  log_max_msg: [],
  log_max_uctx: [],
  local_ca_ack_delay: [],
  atomic: [],
  cqe_version: [],
  device_frequency_khz: [],
}

describe('capabilities', () => {
  const told = (firmware: ReturnType<typeof withCommands>) => {
    const { capability } = firmware.general(Commands.QUERY_HCA_CAP, {}, { opMod: 1 })
    return decodeFields(cmdHcaCap, capability) as Record<string, number | bigint>
  }

  it('are those of the device', () => {
    const { firmware } = oneProgram()
    const { log_max_msg, roce, cqe_version } = told(firmware)
    assert.deepEqual({ log_max_msg, roce, cqe_version }, { log_max_msg: 30, roce: 1, cqe_version: 1 })
  })

  it('that are told have their commands', () => {
    const { firmware } = oneProgram()
    for (const [name, value] of Object.entries(told(firmware)))
      if (BigInt(value) !== 0n) {
        assert.ok(promises[name] !== undefined, `${name} is told: name its commands`)
        for (const command of promises[name]) assert.ok(handlers.has(Commands[command].opcode), `${name}: ${command}`)
      }
  })
})

describe('a general object', () => {
  const RESERVED_QPN = 0x2c
  const AV_QP_MAPPING = 0x3a
  // the type is where other commands have a modifier
  const create = (firmware: ReturnType<typeof withCommands>, type: number, fields: object = {}, restBytes = 0) =>
    firmware.create(Commands.CREATE_GENERAL_OBJECT, fields, { opMod: type, restBytes })

  it('reserves a number that no queue pair gets, until it ends', () => {
    const { m, a, firmware } = oneProgram()
    const { qpns } = m.devices[0]!.device.state as Mlx5Soft
    const before = qpns.count()
    const numbers = Array.from({ length: 100 }, () => {
      const { handle, out } = create(firmware, RESERVED_QPN)
      return { handle, qpn: out.obj_id, other: a.queuePair('rc').qpn }
    })
    assert.equal(new Set(numbers.flatMap(({ qpn, other }) => [qpn, other])).size, 200)
    for (const { handle } of numbers) firmware.destroy(handle)
    assert.equal(qpns.count(), before + 100)
    const { state } = m.devices[0]!.device as { state: Mlx5Soft }
    assert.equal(state.own!.reserved.used, 0)
    create(firmware, RESERVED_QPN)
    closeContext(a.context)
    assert.deepEqual([qpns.count(), state.own!.reserved.used], [before, 0])
  })

  it('maps a path of the device to a queue pair', () => {
    const { firmware } = oneProgram()
    const mapping = (fields: object) =>
      create(firmware, AV_QP_MAPPING, { object: encodeFields(avQpMapping, fields) }, avQpMapping.bytes)
    firmware.destroy(mapping({ qpn: 5, src_addr_index: 1 }).handle)
    assertRefused(() => mapping({ qpn: 5, src_addr_index: 200 }), 'noSuchIndex')
    assertRefused(() => mapping({ qpn: 0x100_0000, src_addr_index: 1 }), 'badValue')
  })

  it('of another type, range or length is refused', () => {
    const { firmware } = oneProgram()
    for (const type of [0, 0xc, 0x2b, 0x2d, 0xffff])
      assertRefused(() => create(firmware, type), 'unsupportedObject', /obj_type/)
    assertRefused(() => create(firmware, RESERVED_QPN, { log_obj_range: 1 }), 'badValue')
    assertRefused(() => create(firmware, AV_QP_MAPPING), 'shortInput')
  })
})

describe('an object of a command', () => {
  it('is made with the hooks of its class, which may refuse it', () => {
    const { m, firmware } = oneProgram()
    const { device } = m.devices[0]!
    const before = device.counts.pd
    const remove = addHook(device, {
      class: 'pd',
      method: 'create',
      pre() {
        throw new CallError('ENOMEM', 'by a rule')
      },
    })
    assertRefused(() => firmware.create(Commands.ALLOC_PD, {}), 'limit', /by a rule/)
    remove()
    assert.deepEqual([device.counts.pd, device.counts.devx_obj], [before, 0])
  })
})

describe('10,000 objects', () => {
  it('of commands are made, and end with their context', () => {
    const { a, m, firmware } = oneProgram()
    for (let i = 0; i < 5000; i++) {
      firmware.create(Commands.ALLOC_PD, {})
      firmware.umem(0, 4096)
    }
    const { device } = m.devices[0]!
    assert.deepEqual([device.counts.pd, device.counts.devx_umem], [5001, 5000])
    closeContext(a.context)
    assert.deepEqual([device.counts.pd, device.counts.devx_umem, device.counts.devx_obj], [0, 0, 0])
    assert.equal(m.core.faults, 0)
  })
})
