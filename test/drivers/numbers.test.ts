/*
 * Every number that a program gets of an adapter's object is above 0, on every device: libdpcp's tests, ibverbs-tests
 * and others take 0 for a failure, and an adapter's own queues come first. Handles of uverbs begin at 0, as Linux's do.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addHook, invokeNow } from '../../src/core/index.ts'
import type { Core, Device } from '../../src/core/model.ts'
import { efaDriver } from '../../src/drivers/efa/device.ts'
import { mlx5Driver } from '../../src/drivers/mlx5/device.ts'
import { rxeDriver } from '../../src/drivers/rxe/device.ts'
import { Ah } from '../../src/spec/classes/ah.ts'
import { Mw } from '../../src/spec/classes/mw.ts'
import { QpAddress } from '../../src/spec/classes/qp/qp.ts'
import { UcQp } from '../../src/spec/classes/qp/uc_qp.ts'
import { UdQp } from '../../src/spec/classes/qp/ud_qp.ts'
import { XrcIniQp, XrcTgtQp } from '../../src/spec/classes/qp/xrc_qp.ts'
import { XrcSrq } from '../../src/spec/classes/srq.ts'
import { RwqIndTable } from '../../src/spec/classes/wq.ts'
import { Xrcd } from '../../src/spec/classes/xrcd.ts'
import { Uar, Var } from '../../src/spec/drivers/mlx5.ts'
import { Commands, type FirmwareCommand } from '../../src/spec/drivers/mlx5-firmware/commands.ts'
import { avQpMapping, GeneralObject } from '../../src/spec/drivers/mlx5-firmware/device.ts'
import { MwType, XrcdFlags } from '../../src/spec/enums.ts'
import { type Attributes, zeroRecord } from '../../src/spec/schema/schema.ts'
import { decodeFields, encodeFields } from '../../src/uapi/firmware/fields.ts'
import * as efa from './efa/machine.ts'
import { withCommands } from './mlx5/firmware.ts'
import * as mlx5 from './mlx5/machine.ts'
import * as rxe from './rxe/machine.ts'
import { makeInitiator, makeSrq, makeTarget, makeXrcSrq, openDomain } from './rxe/srq-and-xrc.ts'

/**
 * Results of creations that are no numbers of objects: sizes, places for mmap(2), and indices, which begin at 0 on
 * Linux too.
 */
const OTHERS = new Set([
  ...['cqe', 'maxWr', 'maxSge', 'length', 'present', 'driverBytes', 'sendRingOffset'],
  ...['doorbellOffset', 'sendDoorbellOffset', 'receiveDoorbellOffset'],
  ...['pageIndex', 'sendSubCq', 'receiveSubCq', 'uarOut'],
])

/** Queue pairs of the general services: none of a program, number 1. */
const NOT_OF_PROGRAMS = ['gsi_qp']

const isNumber = (attributes: Attributes, name: string): boolean =>
  ['u8', 'u16', 'u32'].includes(attributes[name]!.type.kind) && !OTHERS.has(name)

/** What creations of a driver's classes return as numbers, as 'class.attribute', and as 'command.field'. */
const numbersOf = ({ classes }: typeof rxeDriver | typeof mlx5Driver | typeof efaDriver): string[] =>
  classes
    .filter(({ class: { name } }) => !NOT_OF_PROGRAMS.includes(name))
    .flatMap(({ class: cls, ...driver }) => {
      const additions = 'additions' in driver ? (driver.additions as { create?: { out?: Attributes } }) : undefined
      const attributes: Attributes = { ...cls.methods.create?.out, ...additions?.create?.out }
      return Object.keys(attributes)
        .filter(name => isNumber(attributes, name))
        .map(name => `${cls.name}.${name}`)
    })

const creations = Object.entries<FirmwareCommand>(Commands).filter(
  ([, { method, in: input }]) => method === 'create' && input !== undefined,
)

/** Notes the least number of each kind that is created. `mask`: the next object's id has no bits of it. */
const watched = (
  core: Core,
  device: Device,
  driver: typeof rxeDriver | typeof mlx5Driver | typeof efaDriver,
  mask: number,
) => {
  const known = new Set(numbersOf(driver))
  const seen = new Map<string, number>()
  const note = (name: string, value: number) => void seen.set(name, Math.min(value, seen.get(name) ?? value))
  addHook(device, {
    method: 'create',
    post(_call, object, args, out) {
      core.nextObject = Math.ceil(core.nextObject / mask) * mask
      if (out === undefined || object === undefined) return
      const command = object.class.name === 'devx_obj' && commandOf(args.input as Uint8Array)
      if (command) {
        const [name, { number, out: struct }] = command
        note(`${name}.${number}`, decodeFields(struct!, out.output as Uint8Array)[number!] as number)
      }
      for (const [name, value] of Object.entries(out))
        if (known.has(`${object.class.name}.${name}`)) note(`${object.class.name}.${name}`, value as number)
    },
  })
  return seen
}

const commandOf = (input: Uint8Array) =>
  creations.find(([, { opcode }]) => opcode === new DataView(input.buffer, input.byteOffset).getUint16(0))

const address = { ...zeroRecord(QpAddress), dgid: mlx5.ipv4(1), sgidIndex: 1, isGlobal: 1, port: 1 }
const noQueues = { maxSendWr: 0, maxRecvWr: 0, maxSendSge: 0, maxRecvSge: 0, maxInlineData: 0 }

/** By driver: creates an object of each class, and returns the numbers. */
const drivers = {
  rxe: {
    driver: rxeDriver,
    create(mask: number) {
      const m = rxe.machine(1)
      const seen = watched(m.core, m.devices[0]!.device, rxeDriver, mask)
      const p = rxe.program(m)
      rxe.register(p, 4096)
      const cq = rxe.makeCq(p)
      rxe.makeQp(p, cq)
      makeSrq(p)
      const domain = openDomain(p)
      makeXrcSrq(p, domain, cq)
      makeInitiator(p, cq)
      makeTarget(p, domain)
      const queues = { pd: p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: rxe.cap(), userHandle: 0n }
      invokeNow(p.context, UcQp, 'create', 0, queues, p.caller)
      invokeNow(p.context, UdQp, 'create', 0, queues, p.caller)
      invokeNow(p.context, Ah, 'create', 0, { pd: p.pd, userHandle: 0n, address }, p.caller)
      invokeNow(p.context, Mw, 'create', 0, { pd: p.pd, type: MwType.values.TYPE_2 }, p.caller)
      return seen
    },
  },
  mlx5: {
    driver: mlx5Driver,
    create(mask: number) {
      const m = mlx5.machine(1)
      const { device } = m.devices[0]!
      const seen = watched(m.core, device, mlx5Driver, mask)
      const p = mlx5.program(m, 0)
      p.queuePair('rc')
      p.queuePair('ud')
      p.queuePair('dci')
      p.queuePair('raw')
      const receives = p.sharedReceives()
      p.target(receives.object, 1n)
      p.handleOf(0)
      p.window()
      const wq = p.workQueue()
      p.call(RwqIndTable, 'create', 0, { queues: [{ wq: wq.object }] })
      p.call(Uar, 'create', 0, { type: 1n })
      p.call(Var, 'create', 0, {})
      const xrcd = p.call(Xrcd, 'create', 0, { flags: XrcdFlags.values.CREAT }).object
      const place = () => ({
        bufferAddress: p.pages.addressOf(p.pages.take(4096)),
        doorbellAddress: p.pages.addressOf(p.record()),
      })
      const queues = { pd: p.pd, sendCq: p.cq.object, cap: noQueues, userHandle: 0n }
      p.call(UcQp, 'create', 0, { ...queues, recvCq: p.cq.object, ...place() })
      p.call(XrcIniQp, 'create', 0, { ...queues, ...place() })
      p.call(XrcTgtQp, 'create', 0, { xrcd, userHandle: 0n })
      const shared = { pd: p.pd, maxWr: 15, maxSge: 1, limit: 0, userHandle: 0n }
      p.call(XrcSrq, 'create', 0, { ...shared, xrcd, cq: p.cq.object, ...place() })
      // by commands
      const commands = mlx5.program(m, 0, { commands: true })
      commands.queuePair('rc')
      commands.target(commands.sharedReceives().object, 1n)
      const firmware = withCommands(p)
      const umem = firmware.umem()
      const key = { access_mode_1_0: 1, lr: 1, pd: firmware.create(Commands.ALLOC_PD, {}).out.pd, qpn: 0xff_ffff }
      firmware.create(Commands.CREATE_MKEY, {
        memory_key_mkey_entry: { ...key, start_addr: p.address, len: 4096n },
        mkey_umem_id: umem.id,
      })
      firmware.create(Commands.ALLOC_XRCD, {})
      firmware.create(Commands.ALLOC_TRANSPORT_DOMAIN, {})
      firmware.create(Commands.CREATE_PSV, { num_psv: 1, pd: key.pd })
      firmware.create(Commands.CREATE_TIR, { ctx: { inline_rqn: wq.number } })
      firmware.create(Commands.ALLOC_FLOW_COUNTER, {})
      const mapping = { object: encodeFields(avQpMapping, { qpn: 5, src_addr_index: 1 }) }
      firmware.create(Commands.CREATE_GENERAL_OBJECT, {}, { opMod: GeneralObject.RESERVED_QPN })
      const restBytes = avQpMapping.bytes
      firmware.create(Commands.CREATE_GENERAL_OBJECT, mapping, { opMod: GeneralObject.AV_QP_MAPPING, restBytes })
      return seen
    },
  },
  efa: {
    driver: efaDriver,
    create(mask: number) {
      const m = efa.machine(1)
      const seen = watched(m.core, m.devices[0]!.device, efaDriver, mask)
      const p = efa.program(m, 0)
      efa.program(m, 0, { isUd: true })
      p.handleOf(0)
      return seen
    },
  },
}

describe('numbers of objects', () => {
  for (const [name, { driver, create }] of Object.entries(drivers))
    for (const [what, mask] of [
      ['first objects', 1],
      ['objects whose ids end in 24 bits of 0', 2 ** 24],
    ] as const)
      it(`of ${name} are above 0 (${what})`, () => {
        const seen = create(mask)
        const commands = name === 'mlx5' ? creations.map(([command, { number }]) => `${command}.${number}`) : []
        assert.deepEqual([...seen.keys()].sort(), [...numbersOf(driver), ...commands].sort())
        for (const [number, value] of seen) assert.ok(value > 0, `${number}: ${value}`)
      })
})
