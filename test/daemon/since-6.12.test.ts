/*
 * The table of Linux's additions since 6.12 (project/docs/linux-additions.ts) against a running daemon, which is called
 * as each row says, and against the names in Linux's headers.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it, type TestContext } from 'node:test'
import { AttributeFlag } from '../../src/spec/classes/ids.ts'
import { EFA_DRIVER_ID } from '../../src/spec/drivers/efa.ts'
import { MLX5_DRIVER_ID } from '../../src/spec/drivers/mlx5.ts'
import { RXE_DRIVER_ID } from '../../src/spec/drivers/rxe.ts'
import { AsyncEventType, CmEventType, OdpTransportCaps } from '../../src/spec/enums.ts'
import { errnoName } from '../../src/spec/errno.ts'
import { ioctlMethods, RDMA_VERBS_IOCTL, UHW_IN } from '../../src/spec/linux/ioctl.ts'
import { ioctlNames, LinuxObject, type LinuxObjectName } from '../../src/spec/linux/names.ts'
import { MonitorEvent, type NldevCommandName, NlmsgFlags } from '../../src/spec/linux/nldev.ts'
import { ucmaCommands } from '../../src/spec/linux/ucma.ts'
import { CM_NODE } from '../../src/spec/session.ts'
import type { Entries } from '../../src/uapi/nldev/attributes.ts'
import { fixture } from '../paths.ts'
import { type Addition, type AdditionKind, additionKinds, additions } from '../project/docs/linux-additions.ts'
import { scratchFolder } from '../tools.ts'
import { type Client, Command, daemonOf, dial } from './client.ts'
import { openTestSocket } from './netlink/test-socket.ts'

const methodsOf: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = ioctlNames

// ---- names ----

/** Linux's names of a row, with those of the attributes of its methods. */
const linuxNames = ({ kind, names }: Addition): string[] => {
  const [prefix, suffix] = additionKinds[kind] ?? ['', '']
  return names.flatMap(name => {
    const [object = '', method = ''] = name.split('.')
    const attributes = kind === 'method' ? methodsOf[object]![method]! : []
    return [`${prefix}${name.split('.').at(-1)}${suffix}`, ...attributes.map(one => `UVERBS_ATTR_${one}`)]
  })
}

describe('the table of additions since Linux 6.12', () => {
  it('has all names of the headers, those of 7.3 as such', () => {
    const inHeaders = readFileSync(fixture('abi', 'since-6.12.txt'), 'utf8').trimEnd().split('\n')
    const inTable = additions.filter(({ kind }) => !['device event', 'rdma_cm event'].includes(kind))
    const release = ({ since }: Addition): string => (since === '7.3' ? '7.3' : '7.2')
    assert.deepEqual(
      inTable.flatMap(row => linuxNames(row).map(name => `${release(row)} ${name}`)).sort(),
      inHeaders.map(line => line.replace(/ \S+ /, ' ')).sort(),
    )
  })
})

// ---- calls ----

const u16 = (n: number): number[] => [n & 0xff, n >> 8]
const u32 = (n: number): number[] => [...u16(n & 0xffff), ...u16(n >>> 16)]
const u64 = (n: number): number[] => [...u32(n % 2 ** 32), ...u32(Math.floor(n / 2 ** 32))]

/** struct ib_uverbs_attr. */
const attribute = (id: number, length: number, data: number): number[] => [
  ...u16(id),
  ...u16(length),
  ...u16(AttributeFlag.MANDATORY),
  ...u16(0),
  ...u64(data),
]
const PD_ERROR = 'the client has no protection domain'

/** Where messages are, and what attributes point to. */
const [MESSAGE_AT, DATA_AT] = [8192, 16384]

interface Caller {
  readonly client: Client
  readonly context: number
  readonly driver: number
  readonly pd: number
  /** A channel of rdma_cm, and its identifier. */
  readonly channel: number
}

/** OK, or the name of the errno. */
const resultOf = (ret: number): string => (ret < 0 ? errnoName(-ret) : 'OK')

const ioctl = async (caller: Caller, object: number, method: number, attributes: readonly number[][]) => {
  const { client, context, driver } = caller
  const length = 24 + 16 * attributes.length
  const header = [...u16(length), ...u16(object), ...u16(method), ...u16(attributes.length), ...u64(0), ...u32(driver)]
  client.memory.bytes.set([...header, ...u32(0), ...attributes.flat()], MESSAGE_AT)
  return resultOf(await client.ioctl(context, RDMA_VERBS_IOCTL, BigInt(client.memory.address + MESSAGE_AT)))
}

/** The mandatory attributes of a method: handles of the protection domain, zeros in the data area. */
const mandatoryOf = ({ client, pd }: Caller, object: number, method: number): number[][] =>
  (ioctlMethods.find(one => one.object === object && one.number === method)?.attributes ?? [])
    .filter(one => one.mandatory)
    .map(({ id, kind, min }) => {
      if (kind === 'handle') return attribute(id, min, pd)
      return attribute(id, min, kind === 'out' || min > 8 ? client.memory.address + DATA_AT : 0)
    })

const numbersOf = (name: string): [object: number, method: number, attribute: number] => {
  const [object = '', method = '', last = ''] = name.split('.')
  const methods = methodsOf[object]!
  return [
    LinuxObject[object as LinuxObjectName],
    Object.keys(methods).indexOf(method),
    (methods[method] ?? []).indexOf(last),
  ]
}

/** Attributes with which a method that exists succeeds. */
const arguments_: Readonly<Record<string, (caller: Caller) => number[][]>> = {
  'DEVICE.QUERY_PORT_SPEED': ({ client }) => [attribute(0, 8, 1), attribute(1, 8, client.memory.address + DATA_AT)],
  'MR.REG_MR': ({ client: { memory }, pd }) => [
    attribute(0, 0, 0),
    attribute(1, 0, pd),
    attribute(3, 8, memory.address),
    attribute(4, 8, memory.address),
    attribute(5, 8, 4096),
    attribute(6, 4, 1),
    attribute(9, 4, memory.address + DATA_AT),
    attribute(10, 4, memory.address + DATA_AT + 8),
  ],
  'DMAH.DMAH_ALLOC': () => [attribute(0, 0, 0), attribute(3, 1, 3)],
  // the handle in the first attribute of the message before, DMAH_ALLOC
  'DMAH.DMAH_FREE': ({ client }) => [attribute(0, 0, client.memory.u32[(MESSAGE_AT + 24 + 8) / 4]!)],
}

/** Device, object, method and id of drivers' attributes (mlx5_user_ioctl_cmds.h, efa-abi.h). */
const driverAttributes: Readonly<Record<string, readonly [device: 1 | 2, object: number, method: number, id: number]>> =
  {
    MLX5_IB_ATTR_FLOW_MATCHER_IB_PORT: [1, 0x1003, 0x1000, 0x1006],
    MLX5_IB_ATTR_VAR_OBJ_ALLOC_FLAGS: [1, 0x1006, 0x1000, 0x1004],
    MLX5_IB_ATTR_CREATE_CQ_DBR_BUF_UMEM: [1, LinuxObject.CQ, 0, 0x1003],
    MLX5_IB_ATTR_CREATE_QP_DBR_BUF_UMEM: [1, LinuxObject.QP, 0, 0x1002],
    MLX5_IB_ATTR_CREATE_SRQ_DBR_BUF_UMEM: [1, LinuxObject.SRQ, 0, 0x1002],
    EFA_IB_ATTR_CREATE_COMP_CNTR_COMP_BUFFER: [2, LinuxObject.COMP_CNTR, 0, 0x1000],
    EFA_IB_ATTR_CREATE_COMP_CNTR_ERR_BUFFER: [2, LinuxObject.COMP_CNTR, 0, 0x1001],
  }

/** What their methods demand beside them, if the answer is more than a refusal. */
const driverArguments: Readonly<Record<string, (caller: Caller) => number[][]>> = {
  MLX5_IB_ATTR_VAR_OBJ_ALLOC_FLAGS: ({ client: { memory } }) => [
    attribute(0x1000, 0, 0),
    attribute(0x1001, 8, memory.address + DATA_AT),
    attribute(0x1002, 4, memory.address + DATA_AT + 8),
    attribute(0x1003, 4, memory.address + DATA_AT + 12),
  ],
}

/** Writes a command of rdma_cm; `body` begins with the response's address, if there is one. */
const ucma = async ({ client, channel }: Caller, name: string, body: readonly number[], outLength = 0) => {
  const {
    number,
    in: { size },
  } = ucmaCommands.find(one => one.name === name)!
  const bytes = [...u32(number), ...u16(size), ...u16(outLength), ...body]
  client.memory.bytes.fill(0, MESSAGE_AT, MESSAGE_AT + 8 + size)
  client.memory.bytes.set(bytes, MESSAGE_AT)
  return resultOf(await client.writeOn(channel, BigInt(client.memory.address + MESSAGE_AT), BigInt(8 + size)))
}

/** A new identifier that is bound to the address of the first device; returns its number. */
const boundIdentifier = async (caller: Caller): Promise<number> => {
  const { client } = caller
  const response = client.memory.address + DATA_AT
  const TCP = 0x106
  assert.equal(await ucma(caller, 'CREATE_ID', [...u64(0), ...u64(response), ...u16(TCP), 2, 0], 4), 'OK')
  const id = client.memory.u32[DATA_AT / 4]!
  const sockaddr = [...u16(2), 0, 0, 127, 0, 70, 1]
  assert.equal(await ucma(caller, 'BIND', [...u32(id), ...u16(16), ...u16(0), ...sockaddr]), 'OK')
  return id
}

const cmCommands: Readonly<Record<string, (caller: Caller, id: number) => Promise<string>>> = {
  RESOLVE_IB_SERVICE: (caller, id) => ucma(caller, 'RESOLVE_IB_SERVICE', [...u32(id), ...u32(0), ...u64(7)]),
  WRITE_CM_EVENT: (caller, id) =>
    ucma(caller, 'WRITE_CM_EVENT', [...u32(id), ...u32(0), ...u32(CmEventType.values.USER)]),
}

// ---- what programs can get ----

/** Bits of QUERY_CONTEXT's CORE_SUPPORT. */
const ROBUST_UDATA = 2n
/** Bit of device_cap_flags_ex. */
const CC_DMA_BOUNCE = 1n << 41n

const namesWithin = (entries: Entries): string[] =>
  entries.flatMap(([name, value]) => {
    if (typeof value !== 'object' || value instanceof Uint8Array) return [name]
    return [name, ...namesWithin('flagged' in value ? value.flagged : value)]
  })

const startCallers = async (t: TestContext): Promise<Caller[]> => {
  const daemon = await daemonOf(t, scratchFolder(), [], {
    devices: [
      { name: 'rxe0', address: '127.0.70.1' },
      { name: 'mlx5_0', address: '127.0.70.2', driver: 'mlx5' },
      { name: 'efa0', address: '127.0.70.3', driver: 'efa' },
    ],
  })
  const client = dial(t, daemon)
  await client.hello()
  const { descriptors } = await client.open(CM_NODE)
  client.keep(descriptors)
  const callers: Caller[] = []
  for (const [node, driver] of [RXE_DRIVER_ID, MLX5_DRIVER_ID, EFA_DRIVER_ID].entries()) {
    const { context, descriptors: opened } = await client.open(node)
    client.keep(opened)
    callers.push({ client, context, driver, pd: 0, channel: descriptors[0]! })
  }
  return callers
}

describe('each addition of Linux since 6.12', () => {
  it('gets what the table says', async t => {
    const callers = await startCallers(t)
    const [rxe] = callers as [Caller]
    const { client } = rxe
    const [DEVICE, GET_CONTEXT] = [LinuxObject.DEVICE, 3]
    assert.equal(await ioctl(rxe, DEVICE, GET_CONTEXT, []), 'OK')
    const mlx5 = callers[1]!
    assert.equal(await ioctl(mlx5, DEVICE, GET_CONTEXT, [attribute(UHW_IN, 8, 0)]), 'OK')
    const { ret, response } = await client.command(rxe.context, Command.ALLOC_PD, [], 1)
    assert.ok(ret > 0, PD_ERROR)
    const caller: Caller = { ...rxe, pd: response[0]! }
    const id = await boundIdentifier(caller)
    const netlink = await openTestSocket(client)
    const handle: Entries = [['DEV_INDEX', 0]]

    const probes: Readonly<Record<AdditionKind, (name: string, row: Addition) => string | Promise<string>>> = {
      async object(name, { device }) {
        const number = LinuxObject[name as LinuxObjectName]
        if (device === undefined) return ioctl(caller, number, 0, [])
        assert.equal(await ioctl(caller, number, 0, []), 'EPROTONOSUPPORT')
        // an attribute is missing
        return (await ioctl(mlx5, number, 0, [])) === 'EINVAL' ? 'OK' : 'EPROTONOSUPPORT'
      },
      method(name, { device }) {
        const [object, method] = numbersOf(name)
        const on = device === undefined ? caller : mlx5
        return ioctl(on, object, method, arguments_[name]?.(on) ?? [])
      },
      async attribute(name) {
        const [object, method, number] = numbersOf(name)
        const others = mandatoryOf(caller, object, method)
        assert.notEqual(await ioctl(caller, object, method, others), 'EOPNOTSUPP', `${name}: without it`)
        const isFd = name.endsWith('_FD')
        const length = name.endsWith('UMEM') ? 32 : 8
        const passed = isFd ? attribute(number, 0, 0) : attribute(number, length, client.memory.address + DATA_AT)
        return ioctl(caller, object, method, [...others, passed])
      },
      'driver attribute'(name) {
        const [device, object, method, number] = driverAttributes[name]!
        const others = driverArguments[name]?.(caller) ?? []
        return ioctl(callers[device]!, object, method, [...others, attribute(number, 8, 0)])
      },
      'rdma_cm command': name => cmCommands[name]!(caller, id),
      'rdma_cm query': name =>
        ucma(caller, `QUERY_${name}`, [...u64(client.memory.address + DATA_AT), ...u32(id), ...u32(3)], 64),
      async 'netlink command'(name) {
        const isList = name.endsWith('_GET')
        const attributes: Entries = isList ? handle : [...handle, ['FRMR_POOLS_AGING_PERIOD', 60]]
        const answer = await netlink.request(name as NldevCommandName, attributes, isList ? NlmsgFlags.DUMP : 0)
        assert.deepEqual(answer.entries, [])
        return resultOf(-answer.errno)
      },
      async 'netlink attribute'(name) {
        const answers = [
          await netlink.request('RES_GET', handle),
          await netlink.request('STAT_GET', [...handle, ['PORT_INDEX', 1]]),
          await netlink.request('STAT_GET_STATUS', [...handle, ['PORT_INDEX', 1]]),
          await netlink.request('FRMR_POOLS_GET', handle, NlmsgFlags.DUMP),
        ]
        const sent = answers.flatMap(({ entries }) => entries.flatMap(namesWithin))
        return sent.includes(name) ? 'sent' : 'never sent'
      },
      'netlink event': name => (name in MonitorEvent ? 'sent' : 'never sent'),
      'device event': name => (name.replace('IB_EVENT_', '') in AsyncEventType.values ? 'sent' : 'never sent'),
      'rdma_cm event': name => (name.replace('RDMA_CM_EVENT_', '') in CmEventType.values ? 'sent' : 'never sent'),
      async value(name, { answer }) {
        if (name.startsWith('IB_UVERBS_ODP')) {
          const bit = name.replace(/IB_UVERBS_ODP_SUPPORT_?/, '')
          return bit === '' || bit === 'IMPLICIT' || bit in OdpTransportCaps.values ? 'sent' : 'never sent'
        }
        if (name.endsWith('ROBUST_UDATA')) {
          const pointer = client.memory.address + DATA_AT
          assert.equal(await ioctl(caller, LinuxObject.DEVICE, 4, [attribute(1, 8, pointer)]), 'OK')
          return (client.memory.view.getBigUint64(DATA_AT, true) & ROBUST_UDATA) === 0n ? 'never sent' : 'sent'
        }
        if (name.endsWith('CC_DMA_BOUNCE')) {
          const { entries } = await netlink.request('GET', handle)
          const flags = entries[0]!.find(([one]) => one === 'CAP_FLAGS')?.[1] as bigint
          return (flags & CC_DMA_BOUNCE) === 0n ? 'never sent' : 'sent'
        }
        // A value of a call that another row probes.
        return answer
      },
    }

    const wrong: string[] = []
    for (const row of additions)
      for (const name of row.names) {
        const here = await probes[row.kind](name, row)
        if (here !== row.answer) wrong.push(`${row.kind} ${name}: ${here}, in the table ${row.answer}`)
      }
    assert.deepEqual(wrong, [])
  })
})
