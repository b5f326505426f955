/*
 * NETLINK_RDMA sockets of a daemon, without the preload library.
 */
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import fc from 'fast-check'
import { RXE_DRIVER_ID } from '../../../src/spec/drivers/rxe.ts'
import { PortState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import {
  CounterMask,
  CounterMode,
  MONITOR,
  MonitorEvent,
  NetlinkOption,
  NldevAttributes,
  NldevCommands,
  NlmsgFlags,
  NlmsgType,
  nldevType,
  RDMA_NL_GROUP_NOTIFY,
} from '../../../src/spec/linux/nldev.ts'
import { NetlinkOperation } from '../../../src/spec/session.ts'
import { decodeAttributes, type Entries } from '../../../src/uapi/nldev/attributes.ts'
import type { Message } from '../../../src/uapi/nldev/messages.ts'
import { makedev, scratchFolder } from '../../tools.ts'
import { type Client, Command, createCq, createRcQp, daemonOf, dial, eventually } from '../client.ts'
import { type Answer, attributeOf, errnoOf, type NetlinkTestSocket, openTestSocket, requestOf } from './test-socket.ts'

const folder = scratchFolder()
const { DUMP, ACK, REQUEST } = NlmsgFlags
/** Struct nlmsghdr. */
const Header = { lengthAt: 0, typeAt: 4, flagsAt: 6, bytes: 16 } as const
/** Maximum bytes of attributes in one datagram of a list. */
const MAX_LIST_BYTES = 3760
/** NLM_F_DUMP is NLM_F_ROOT and this flag. */
const NLM_F_MATCH = 0x200

const setUp = async (t: TestContext, devices?: string[]): Promise<{ client: Client; socket: NetlinkTestSocket }> => {
  const client = dial(t, await daemonOf(t, folder, devices))
  await client.hello()
  return { client, socket: await openTestSocket(client) }
}

/** Returns a request with `body` appended; the length in its header is the whole length. */
const withBody = (request: Uint8Array, body: Iterable<number>): Uint8Array => {
  const whole = new Uint8Array([...request, ...body])
  new DataView(whole.buffer).setUint32(Header.lengthAt, whole.length, true)
  return whole
}

/** Receives messages until NLMSG_DONE. */
const receiveUntilDone = async (socket: NetlinkTestSocket): Promise<Message[]> => {
  const messages = socket.received()
  while (messages.at(-1)?.type !== NlmsgType.DONE) {
    await new Promise(setImmediate)
    messages.push(...socket.received())
  }
  return messages
}

/** Waits until the daemon has handled its sockets, which it does before it answers a session. */
const untilHandled = async (client: Client): Promise<void> => {
  await client.stat()
}

/** The entries of a table in an answer. */
const entriesOf = ({ entries }: Answer, table: Entries[number][0]): Entries[] =>
  entries.flatMap(message => (attributeOf(message, table) as Entries).map(([, value]) => value as Entries))

const names = ({ entries }: Answer): unknown[] => entries.map(message => attributeOf(message, 'DEV_NAME'))

describe('devices', () => {
  it('and their ports are listed, and found by index', async t => {
    const { socket } = await setUp(t, ['127.0.0.1', '127.0.0.2'])
    assert.deepEqual(names(await socket.request('GET', [], DUMP)), ['rxe0', 'rxe1'])
    assert.deepEqual(names(await socket.request('GET', [['DEV_INDEX', 1]])), ['rxe1'])
    assert.deepEqual(await socket.request('GET', [['DEV_INDEX', 2]]), { errno: Errno.EINVAL, entries: [] })
    assert.deepEqual(await socket.request('GET'), { errno: Errno.EINVAL, entries: [] })
    const [port] = (await socket.request('PORT_GET', [['DEV_INDEX', 0]], DUMP)).entries
    assert.deepEqual(
      [attributeOf(port, 'PORT_INDEX'), attributeOf(port, 'PORT_STATE'), attributeOf(port, 'NDEV_NAME')],
      [1, PortState.values.ACTIVE, 'lo'],
    )
    const beyond = await socket.request('PORT_GET', [
      ['DEV_INDEX', 0],
      ['PORT_INDEX', 2],
    ])
    assert.equal(beyond.errno, Errno.EINVAL)
  })

  it('have device nodes, which are found by type, index and port', async t => {
    const { socket } = await setUp(t)
    const node = (type: string, ...more: Entries) => socket.request('GET_CHARDEV', [['CHARDEV_TYPE', type], ...more])
    const { entries } = await node('uverbs', ['DEV_INDEX', 0])
    assert.deepEqual(entries, [
      [
        ['UVERBS_DRIVER_ID', RXE_DRIVER_ID],
        ['CHARDEV', BigInt(makedev(231, 192))],
        ['CHARDEV_ABI', 2n],
        ['CHARDEV_NAME', 'uverbs0'],
      ],
    ])
    assert.deepEqual((await node('rdma_cm')).entries, [
      [
        ['CHARDEV', BigInt(makedev(10, 122))], // 10: the major number of misc devices
        ['CHARDEV_ABI', 4n],
        ['CHARDEV_NAME', 'rdma_cm'],
      ],
    ])
    assert.equal((await node('rdma_cm', ['DEV_INDEX', 0])).errno, Errno.EOPNOTSUPP)
    assert.equal((await node('uverbs')).errno, Errno.EOPNOTSUPP)
    assert.equal((await node('uverbs', ['DEV_INDEX', 0], ['PORT_INDEX', 1])).errno, Errno.EINVAL)
    for (const unknown of ['nosuch', 'toString']) assert.equal((await node(unknown)).errno, Errno.EOPNOTSUPP)
    assert.equal((await node('umad', ['DEV_INDEX', 0])).errno, Errno.EINVAL)
    assert.equal((await node('umad', ['PORT_INDEX', 1])).errno, Errno.EINVAL)
    assert.deepEqual((await node('umad', ['DEV_INDEX', 0], ['PORT_INDEX', 1])).entries, [
      [
        ['CHARDEV', BigInt(makedev(231, 0))],
        ['CHARDEV_ABI', 5n],
        ['CHARDEV_NAME', 'umad0'],
      ],
    ])
    assert.equal((await node('issm', ['DEV_INDEX', 0], ['PORT_INDEX', 1])).errno, Errno.EOPNOTSUPP)
  })

  it('are added, renamed and removed, with the events of Linux for RDMA_NL_GROUP_NOTIFY', async t => {
    const { client, socket } = await setUp(t)
    const listener = await openTestSocket(client)
    assert.equal(await listener.call('SET', NetlinkOption.ADD_MEMBERSHIP, BigInt(RDMA_NL_GROUP_NOTIFY)), 0)
    // Without required attributes the request is refused.
    assert.deepEqual(await socket.request('NEWLINK', []), { errno: Errno.EINVAL, entries: [] })
    const change = async (command: 'NEWLINK' | 'SET' | 'DELLINK', ...attributes: Entries): Promise<number> =>
      (await socket.request(command, attributes, ACK)).errno
    const addTo = (interfaceName: string, name: string): Promise<number> =>
      change('NEWLINK', ['DEV_NAME', name], ['LINK_TYPE', 'rxe'], ['NDEV_NAME', interfaceName])
    assert.equal(await addTo('lo', 'mlx5_0'), Errno.EEXIST, 'an interface has at most one device')
    for (const absent of ['nosuch0', 'constructor', '', '..']) assert.equal(await addTo(absent, 'mlx5_0'), Errno.ENODEV)
    assert.equal(await addTo('nosuch0', 'rxe%d'), Errno.EINVAL, 'the name is checked first')
    assert.equal(await change('DELLINK', ['DEV_INDEX', 0]), 0)
    assert.equal(await addTo('lo', 'mlx5_0'), 0)
    assert.equal(await change('SET', ['DEV_INDEX', 0], ['DEV_NAME', 'bnxt_re0']), Errno.EINVAL, 'no number comes twice')
    assert.equal(await change('SET', ['DEV_INDEX', 1], ['DEV_NAME', 'bnxt_re0']), 0)
    assert.equal(await change('SET', ['DEV_INDEX', 1], ['DEV_NAME', 'bnxt_re0']), 0, 'it may keep its name')
    const notifications = listener.received().map(({ type, port, sequence, body }) => {
      assert.deepEqual({ type, port, sequence }, { type: nldevType(MONITOR), port: 0, sequence: 0 })
      return decodeAttributes(body)
    })
    assert.deepEqual(
      notifications.map(entries => [attributeOf(entries, 'EVENT_TYPE'), attributeOf(entries, 'DEV_NAME')]),
      [
        [MonitorEvent.UNREGISTER, 'rxe0'],
        [MonitorEvent.REGISTER, 'mlx5_0'],
        [MonitorEvent.NETDEV_ATTACH, 'mlx5_0'],
        [MonitorEvent.RENAME, 'bnxt_re0'],
      ],
    )
    const attach = notifications.find(entries => attributeOf(entries, 'EVENT_TYPE') === MonitorEvent.NETDEV_ATTACH)
    assert.deepEqual(
      attach?.map(([name]) => name),
      ['DEV_INDEX', 'DEV_NAME', 'PORT_INDEX', 'NDEV_INDEX', 'NDEV_NAME', 'EVENT_TYPE'],
    )
    assert.equal(await listener.call('SET', NetlinkOption.DROP_MEMBERSHIP, BigInt(RDMA_NL_GROUP_NOTIFY)), 0)
    assert.equal(await change('DELLINK', ['DEV_INDEX', 1]), 0)
    assert.deepEqual(listener.received(), [])
    assert.deepEqual((await client.stat()).devices, [])
  })

  it('need a free name and a known type; only soft devices are removed', async t => {
    const { client, socket } = await setUp(t)
    const [soft, other] = [0, 1]
    await client.tool({ kind: 'device', add: { name: 'ctx0', address: '' } })
    const change = async (command: 'NEWLINK' | 'DELLINK', ...attributes: Entries): Promise<number> =>
      (await socket.request(command, attributes, ACK)).errno
    const add = (name: string, type: string): Promise<number> =>
      change('NEWLINK', ['DEV_NAME', name], ['LINK_TYPE', type], ['NDEV_NAME', 'lo'])
    assert.equal(await change('DELLINK', ['DEV_INDEX', soft]), 0)
    assert.equal(await change('DELLINK', ['DEV_INDEX', other]), Errno.EINVAL)
    assert.equal(await add('siw0', 'siw'), Errno.EINVAL)
    assert.equal(await add('ctx0', 'rxe'), Errno.ENFILE)
    assert.deepEqual(names(await socket.request('GET', [], DUMP)), ['ctx0'])
  })

  it('store whether interrupt moderation (DIM) is enabled: 0 or 1', async t => {
    const { socket } = await setUp(t)
    const moderation = async (): Promise<unknown> =>
      attributeOf((await socket.request('GET', [['DEV_INDEX', 0]])).entries[0]!, 'DEV_DIM')
    const set = async (value: number): Promise<number> => {
      const attributes: Entries = [
        ['DEV_INDEX', 0],
        ['DEV_DIM', value],
      ]
      return (await socket.request('SET', attributes, ACK)).errno
    }
    for (const [value, errno, stored] of [
      [1, 0, 1],
      [2, Errno.EINVAL, 1],
      [0, 0, 0],
    ] as const) {
      assert.equal(await set(value), errno)
      assert.equal(await moderation(), stored)
    }
  })

  it('keep their fault rules when they are renamed', async t => {
    const { client, socket } = await setUp(t, ['127.0.0.1', '127.0.0.2'])
    const rules = async (set?: string) => {
      const reply = await client.tool({ kind: 'fault', ...(set !== undefined && { set }) })
      return 'faults' in reply && reply.faults.map(({ rule }) => rule)
    }
    assert.deepEqual(await rules('device=rxe1,drop=1%'), ['device=rxe1,drop=0.01'])
    const renamed = await socket.request(
      'SET',
      [
        ['DEV_INDEX', 1],
        ['DEV_NAME', 'mlx5_0'],
      ],
      ACK,
    )
    assert.equal(renamed.errno, 0)
    assert.deepEqual(await rules(), ['device=mlx5_0,drop=0.01'])
  })

  it('share settings for privileged Q_Keys and for namespaces', async t => {
    const { socket } = await setUp(t)
    const mode = async (): Promise<unknown> =>
      attributeOf((await socket.request('SYS_GET')).entries[0]!, 'SYS_PRIVILEGED_QKEY_MODE')
    const set = async (value: number): Promise<number> =>
      (await socket.request('SYS_SET', [['SYS_PRIVILEGED_QKEY_MODE', value]], ACK)).errno
    assert.equal(await mode(), 0)
    assert.equal(await set(1), 0)
    assert.equal(await mode(), 1)
    assert.equal(await set(2), Errno.EINVAL)
    assert.equal(await set(0), 0)
    assert.equal(await mode(), 0)
    const netnsMode = async (): Promise<unknown> =>
      attributeOf((await socket.request('SYS_GET')).entries[0]!, 'SYS_NETNS_MODE')
    assert.equal((await socket.request('SYS_SET', [['SYS_NETNS_MODE', 0]], ACK)).errno, 0)
    assert.equal(await netnsMode(), 0)
    // As on Linux, a request with both changes only the first.
    const both: Entries = [
      ['SYS_NETNS_MODE', 1],
      ['SYS_PRIVILEGED_QKEY_MODE', 1],
    ]
    assert.equal((await socket.request('SYS_SET', both, ACK)).errno, 0)
    assert.deepEqual([await netnsMode(), await mode()], [1, 0])
  })

  it('store the mode of queue pair counters, but refuse to bind a counter', async t => {
    const { socket } = await setUp(t)
    const qpAttributes: Entries = [
      ['DEV_INDEX', 0],
      ['PORT_INDEX', 1],
      ['STAT_RES', NldevAttributes.RES_QP.number],
    ]
    const mode = async (): Promise<unknown[]> => {
      const { entries } = await socket.request('STAT_GET', [...qpAttributes, ['STAT_MODE', 0]])
      return [attributeOf(entries[0], 'STAT_MODE'), attributeOf(entries[0], 'STAT_AUTO_MODE_MASK')]
    }
    const setAuto = async (mask: number): Promise<number> => {
      const attributes: Entries = [
        ['STAT_MODE', CounterMode.AUTO],
        ['STAT_AUTO_MODE_MASK', mask],
      ]
      return (await socket.request('STAT_SET', [...qpAttributes, ...attributes])).errno
    }
    assert.deepEqual(await mode(), [CounterMode.NONE, undefined])
    assert.equal(await setAuto(CounterMask.PID), 0)
    assert.deepEqual(await mode(), [CounterMode.AUTO, CounterMask.PID])
    const unknownBit = 4
    assert.equal(await setAuto(unknownBit), Errno.EINVAL)
    const bind = async (): Promise<number> =>
      (await socket.request('STAT_SET', [...qpAttributes, ['STAT_MODE', CounterMode.MANUAL], ['RES_LQPN', 999]])).errno
    assert.equal(await bind(), Errno.EINVAL)
    assert.equal(await setAuto(0), 0)
    assert.deepEqual(await mode(), [CounterMode.NONE, undefined])
    assert.equal(await bind(), Errno.ENOENT, 'there is no queue pair 999')
  })

  it('return the counters of a port with their names, which the status lists too', async t => {
    const { socket } = await setUp(t)
    const portAttributes: Entries = [
      ['DEV_INDEX', 0],
      ['PORT_INDEX', 1],
    ]
    const values = attributeOf(
      (await socket.request('STAT_GET', portAttributes)).entries[0],
      'STAT_HWCOUNTERS',
    ) as Entries
    const known = attributeOf(
      (await socket.request('STAT_GET_STATUS', portAttributes)).entries[0],
      'STAT_HWCOUNTERS',
    ) as Entries
    const counterNames = (list: Entries) =>
      list.map(([, entry]) => attributeOf((entry as { flagged: Entries }).flagged, 'STAT_HWCOUNTER_ENTRY_NAME'))
    assert.ok(counterNames(values).includes('sent_pkts'))
    assert.deepEqual(counterNames(known), counterNames(values))
  })
})

describe('objects', () => {
  it('are listed with their context and process, and counted', async t => {
    const { client, socket } = await setUp(t)
    const context = await client.context()
    const allocPd = () => client.command(context, Command.ALLOC_PD, [], 1)
    const pds = [await allocPd(), await allocPd()]
    assert.deepEqual(
      pds.map(({ ret }) => ret > 0),
      [true, true],
    )
    const list = entriesOf(await socket.request('RES_PD_GET', [['DEV_INDEX', 0]], DUMP), 'RES_PD')
    assert.equal(list.length, 2)
    for (const pd of list) assert.equal(attributeOf(pd, 'RES_PID'), process.pid)
    const id = attributeOf(list[1], 'RES_PDN') as number
    const { entries } = await socket.request('RES_PD_GET', [
      ['DEV_INDEX', 0],
      ['RES_PDN', id],
    ])
    assert.equal(attributeOf(entries[0], 'RES_PDN'), id)
    const wrong = async (...attributes: Entries): Promise<number> =>
      (await socket.request('RES_PD_GET', [['DEV_INDEX', 0], ...attributes])).errno
    assert.equal(await wrong(['RES_PDN', id + 1000]), Errno.ENOENT)
    assert.equal(await wrong(['RES_PDN', id], ['PORT_INDEX', 1]), Errno.EINVAL)
    assert.equal(await wrong(), Errno.EINVAL)
    const contexts = entriesOf(await socket.request('RES_CTX_GET', [['DEV_INDEX', 0]], DUMP), 'RES_CTX')
    assert.deepEqual(
      contexts.map(entry => attributeOf(entry, 'RES_CTXN')),
      [attributeOf(list[0], 'RES_CTXN')],
    )
    // qp 1: queue pair 1, which belongs to the device
    const [summary] = (await socket.request('RES_GET', [], DUMP)).entries
    const counts = (attributeOf(summary, 'RES_SUMMARY') as Entries).map(([, entry]) => entry as Entries)
    assert.deepEqual(
      counts.map(entry => [attributeOf(entry, 'RES_SUMMARY_ENTRY_NAME'), attributeOf(entry, 'RES_SUMMARY_ENTRY_CURR')]),
      Object.entries({ pd: 2n, cq: 0n, qp: 1n, cm_id: 0n, mr: 0n, ctx: 1n, srq: 0n }),
    )
  })

  it('of a port are found only by its index; a queue pair in RESET has no port, and cannot get a counter', async t => {
    const { client, socket } = await setUp(t)
    const context = await client.context()
    const pd = (await client.command(context, Command.ALLOC_PD, [], 1)).response[0]!
    const qpn = await createRcQp(client, context, pd, await createCq(client, context))
    const port: Entries = [
      ['DEV_INDEX', 0],
      ['PORT_INDEX', 1],
    ]
    const qpnsOf = async (attributes: Entries): Promise<unknown[]> =>
      entriesOf(await socket.request('RES_QP_GET', attributes, DUMP), 'RES_QP').map(qp => attributeOf(qp, 'RES_LQPN'))
    assert.deepEqual(await qpnsOf([['DEV_INDEX', 0]]), [qpn, 1])
    assert.deepEqual(await qpnsOf(port), [1])
    const errno = async (command: 'RES_QP_GET' | 'STAT_SET' | 'STAT_DEL', ...more: Entries): Promise<number> =>
      (await socket.request(command, [...port, ['RES_LQPN', qpn], ...more])).errno
    assert.equal(await errno('RES_QP_GET'), Errno.EAGAIN)
    const ofQps: Entries = [['STAT_RES', NldevAttributes.RES_QP.number]]
    const manual: Entries = [...ofQps, ['STAT_MODE', CounterMode.MANUAL]]
    assert.equal(await errno('STAT_SET', ...manual), Errno.ENOMEM)
    assert.equal(await errno('STAT_SET', ...manual, ['STAT_COUNTER_ID', 1]), Errno.ENOENT)
    assert.equal(await errno('STAT_DEL', ...ofQps, ['STAT_COUNTER_ID', 1]), Errno.EINVAL)
  })

  it('are counted for all remaining devices if one is removed meanwhile', async t => {
    // Counting one device after another takes several turns of the event loop.
    const { client, socket } = await setUp(
      t,
      Array.from({ length: 16 }, (_, i) => `127.0.0.${i + 1}`),
    )
    const sent = socket.send(requestOf('RES_GET', [], DUMP))
    await client.tool({ kind: 'device', remove: 'rxe14' })
    await sent
    const messages = await receiveUntilDone(socket)
    assert.equal(errnoOf(messages.pop()!), 0)
    const listed = messages.map(({ body }) => attributeOf(decodeAttributes(body), 'DEV_NAME'))
    assert.deepEqual(
      listed,
      [...Array(16).keys()].filter(i => i !== 14).map(i => `rxe${i}`),
    )
  })

  it('are each listed once, in datagrams of limited size, while other sockets are answered', async t => {
    const { client, socket } = await setUp(t)
    const context = await client.context()
    const count = 1500 // needs many datagrams
    for (let i = 0; i < count; i++) await client.command(context, Command.ALLOC_PD, [], 1)
    const other = await openTestSocket(client)
    const request = requestOf('RES_PD_GET', [['DEV_INDEX', 0]], DUMP)
    const twice = Buffer.concat([request, request])
    assert.equal(await socket.send(twice), twice.length)
    assert.deepEqual(names(await other.request('GET', [], DUMP)), ['rxe0'])
    const messages = await receiveUntilDone(socket)
    // As on Linux, a second dump during the first one is EBUSY.
    const refused = messages.filter(({ type }) => type === NlmsgType.ERROR)
    assert.deepEqual(refused.map(errnoOf), [Errno.EBUSY])
    const ids = messages
      .filter(({ type }) => type > NlmsgType.FIRST)
      .flatMap(({ body, flags }) => {
        assert.ok(body.length <= MAX_LIST_BYTES)
        assert.equal(flags, NlmsgFlags.MULTI)
        return attributeOf(decodeAttributes(body), 'RES_PD') as Entries
      })
      .map(([, entry]) => attributeOf(entry as Entries, 'RES_PDN'))
    assert.equal(ids.length, count)
    assert.equal(new Set(ids).size, count)
  })
})

describe('requests that search many objects', () => {
  it('let other work run between two requests, and between the steps of each, also in one datagram', async t => {
    const { client, socket } = await setUp(t)
    const context = await client.context()
    // More than two steps of a search (core/resources.ts).
    for (let i = 0; i < 2100; i++) assert.ok((await client.command(context, Command.ALLOC_PD, [], 1)).ret > 0)
    const unknown: Entries = [
      ['DEV_INDEX', 0],
      ['RES_PDN', 0x7fff_ffff],
    ]
    const requests = Array.from({ length: 64 }, (_, i) => requestOf('RES_PD_GET', unknown, 0, i))
    let turns = 0
    let isAnswered = false
    const countTurn = (): void => {
      turns++
      if (!isAnswered) setImmediate(countTurn)
    }
    countTurn()
    await socket.send(Buffer.concat(requests))
    isAnswered = true
    const answers = socket.received()
    assert.deepEqual(
      answers.map(answer => [answer.sequence, errnoOf(answer)]),
      requests.map((_, i) => [i, Errno.ENOENT]),
    )
    assert.ok(turns > 2 * requests.length, `${turns}`)
  })
})

describe('a program with invalid or unusual requests', () => {
  it('loses unread answers, gets NLMSG_OVERRUN, and is then answered', async t => {
    const { client, socket } = await setUp(t)
    const request = requestOf('SYS_GET')
    const datagram = Buffer.concat(Array.from({ length: 64 }, () => request))
    for (let i = 0; i < 20; i++) assert.equal(await socket.send(datagram), datagram.length)
    const first = socket.received()
    assert.ok(first.length > 0 && first.length < 64 * 20)
    await untilHandled(client)
    const [overrun] = socket.received()
    assert.equal(overrun.type, NlmsgType.OVERRUN)
    assert.deepEqual(await socket.request('SYS_GET', [], ACK).then(({ errno }) => errno), 0)
  })

  it('gets an answer to a datagram that it sends without the preload library', async t => {
    const { client, socket } = await setUp(t)
    const request = requestOf('GET', [], DUMP)
    assert.equal(socket.sendDirectly(request), request.length)
    await untilHandled(client)
    assert.equal(socket.received().length, 2, 'a device and NLMSG_DONE')
    assert.ok((await socket.call('NAME')) > 0, 'it is bound')
  })

  it('keeps its port; a further bind must name this port', async t => {
    const { socket } = await setUp(t)
    assert.equal(await socket.call('BIND'), 0)
    const port = await socket.call('NAME')
    assert.ok(port > 0)
    for (const other of [0, port + 1]) assert.equal(await socket.call('BIND', 0, BigInt(other)), -Errno.EINVAL)
    const groups = 8
    assert.equal(await socket.call('BIND', 0, BigInt(port) | (BigInt(groups) << 32n)), 0)
    assert.equal(await socket.call('NAME'), port + groups * 2 ** 32)
  })

  it('is refused for an unknown socket or operation, invalid memory, or too many bytes', async t => {
    const { client, socket } = await setUp(t)
    assert.equal((await client.netlink(0, NetlinkOperation.NAME, 0, 0n)).ret, BigInt(-Errno.EBADF))
    assert.equal((await client.netlink(socket.fd, 99, 0, 0n)).ret, BigInt(-Errno.EOPNOTSUPP))
    assert.equal(await socket.call('SEND', 16, 4096n), -Errno.EFAULT)
    assert.equal(await socket.call('SEND', 65537, BigInt(client.memory.address)), -Errno.EMSGSIZE)
    assert.equal(await socket.call('SET', 77, 1n), -Errno.ENOPROTOOPT)
    assert.equal(await socket.call('GET', 77), -Errno.ENOPROTOOPT)
    assert.equal(await socket.call('SET', NetlinkOption.ADD_MEMBERSHIP, 99n), -Errno.EINVAL)
  })

  it('is refused lists of commands that have none, and unknown types; without NLM_F_REQUEST it gets only ACKs', async t => {
    const { socket } = await setUp(t)
    assert.equal((await socket.request('SYS_GET', [], DUMP)).errno, Errno.EINVAL)
    assert.equal((await socket.request('SET', [['DEV_INDEX', 0]], DUMP)).errno, Errno.EINVAL)
    const invalid = requestOf('GET', [], DUMP)
    const unknownCommand = 63
    new DataView(invalid.buffer).setUint16(Header.typeAt, nldevType(unknownCommand), true)
    await socket.send(invalid)
    assert.deepEqual(socket.received().map(errnoOf), [Errno.EINVAL])
    const noRequest = requestOf('GET', [], DUMP)
    new DataView(noRequest.buffer).setUint16(Header.flagsAt, DUMP, true)
    await socket.send(noRequest)
    assert.deepEqual(socket.received(), [])
    new DataView(noRequest.buffer).setUint16(Header.flagsAt, DUMP | ACK, true)
    await socket.send(noRequest)
    assert.deepEqual(socket.received().map(errnoOf), [0])
  })

  it('gets the answers of Linux to malformed, unknown and wrong attributes', async t => {
    const { client, socket } = await setUp(t)
    const context = await client.context()
    assert.ok((await client.command(context, Command.ALLOC_PD, [], 1)).ret > 0)
    /** An attribute. `length` replaces the real length, `flags` are added to the type. */
    const attribute = (number: number, bytes: number[] | string, { length = 0, flags = 0 } = {}): number[] => {
      const value = [...Buffer.from(bytes as string)]
      const header = Uint16Array.of(length || 4 + value.length, number | flags)
      return [...new Uint8Array(header.buffer), ...value, ...new Uint8Array(-value.length & 3)]
    }
    const number = (name: keyof typeof NldevAttributes): number => NldevAttributes[name].number
    const deviceIndex = number('DEV_INDEX')
    const index = attribute(deviceIndex, [0, 0, 0, 0])
    const unknown = attribute(999, [1, 2, 3, 4])
    const name = number('DEV_NAME')
    const { EINVAL, ENOENT, ERANGE, EOPNOTSUPP } = Errno
    const NESTED = { flags: 0x8000 }
    const NET_BYTEORDER = { flags: 0x4000 }
    const nestedBytes = (bytes: number[]) => attribute(number('RES_SUMMARY'), bytes)
    const port = attribute(number('PORT_INDEX'), [1, 0, 0, 0])
    const counter = attribute(number('STAT_COUNTER_ID'), [1, 0, 0, 0])
    const ofQps = attribute(number('STAT_RES'), [number('RES_QP'), 0, 0, 0])
    const unknownQp = attribute(number('RES_LQPN'), [9, 9, 0, 0])
    /** The expected result of a list: errno 0, and the number of messages before NLMSG_DONE. */
    const listed = (messages: number) => [0, messages]
    const rows: [string, keyof typeof NldevCommands, number, number[], number | number[]][] = [
      // Liberal readers, for old programs.
      ['unknown attribute', 'GET', ACK, [...index, ...unknown], 0],
      ['attribute 0', 'GET', ACK, [...index, ...attribute(0, [1])], 0],
      ['longer number', 'GET', ACK, attribute(deviceIndex, [0, 0, 0, 0, 9]), 0],
      ['shorter number', 'GET', ACK, attribute(deviceIndex, [0, 0]), EINVAL],
      ['number with NLA_F_NESTED', 'GET', ACK, attribute(deviceIndex, [0, 0, 0, 0], NESTED), 0],
      ['number with NLA_F_NET_BYTEORDER', 'GET', ACK, attribute(deviceIndex, [0, 0, 0, 0], NET_BYTEORDER), 0],
      ['length beyond the message', 'GET', ACK, attribute(deviceIndex, [0, 0, 0, 0], { length: 9 }), EINVAL],
      ['length below the header', 'GET', ACK, attribute(deviceIndex, [0, 0, 0, 0], { length: 3 }), EINVAL],
      ['bytes at the end', 'GET', ACK, [...index, 1, 2, 3], 0],
      ['empty nested attribute', 'GET', ACK, [...index, ...nestedBytes([])], 0],
      ['nested attribute cut in its header', 'GET', ACK, [...index, ...nestedBytes([8, 0, 16])], EINVAL],
      ['nested attribute cut in its value', 'GET', ACK, [...index, ...nestedBytes([8, 0, 16, 0])], 0],
      ['short address', 'GET', ACK, [...index, ...attribute(number('RES_SRC_ADDR'), [2, 0])], EINVAL],
      ['text without NUL', 'GET', ACK, [...index, ...attribute(name, 'rxe0')], EINVAL],
      ['text of 65 bytes after its NUL', 'GET', ACK, [...index, ...attribute(name, `a\0${'x'.repeat(63)}`)], EINVAL],
      ['text of 65 bytes with NUL', 'GET', ACK, [...index, ...attribute(name, `${'x'.repeat(64)}\0`)], 0],
      ['empty text', 'GET', ACK, [...index, ...attribute(name, '')], EINVAL],
      ['shorter number', 'SYS_GET', ACK, attribute(deviceIndex, [0, 0]), ERANGE],
      ['text without NUL', 'SYS_GET', ACK, attribute(name, 'rxe0'), EINVAL],
      ['shorter number', 'GET_CHARDEV', ACK, attribute(deviceIndex, [0, 0]), EINVAL],
      // Strict readers.
      ['unknown attribute', 'SET', ACK, [...index, ...unknown], EINVAL],
      ['longer number', 'SET', ACK, attribute(deviceIndex, [0, 0, 0, 0, 9]), EINVAL],
      ['number with NLA_F_NESTED', 'SET', ACK, attribute(deviceIndex, [0, 0, 0, 0], NESTED), EINVAL],
      ['bytes at the end', 'SET', ACK, [...index, 1, 2, 3], EINVAL],
      ['nested attribute without NLA_F_NESTED', 'SET', ACK, [...index, ...nestedBytes([])], EINVAL],
      ['nested attribute', 'SET', ACK, [...index, ...attribute(number('RES_SUMMARY'), [], NESTED)], 0],
      ['address', 'SET', ACK, [...index, ...attribute(number('RES_SRC_ADDR'), Array(128).fill(0))], EINVAL],
      ['nothing to set', 'SET', ACK, index, 0],
      ['namespace', 'SET', ACK, [...index, ...attribute(number('NET_NS_FD'), [0, 0, 0, 0])], EINVAL],
      // Lists.
      ['malformed attribute', 'GET', DUMP, attribute(deviceIndex, [0, 0]), listed(1)],
      ['malformed attribute', 'RES_GET', DUMP, attribute(deviceIndex, [0, 0]), listed(1)],
      ['malformed attribute', 'PORT_GET', DUMP, attribute(deviceIndex, [0, 0]), EINVAL],
      ['malformed attribute', 'RES_PD_GET', DUMP, attribute(deviceIndex, [0, 0]), EINVAL],
      ['no device', 'RES_PD_GET', DUMP, [], EINVAL],
      ['no objects', 'RES_SRQ_GET', DUMP, index, listed(0)],
      ['NLM_F_MATCH alone', 'RES_PD_GET', NLM_F_MATCH, index, listed(1)],
      ['command without list', 'SET', DUMP, index, EINVAL],
      ['port, of objects that belong to none', 'RES_PD_GET', DUMP, [...index, ...port], listed(1)],
      [
        'unknown port',
        'STAT_GET',
        DUMP,
        [...index, ...ofQps, ...attribute(number('PORT_INDEX'), [9, 0, 0, 0])],
        EINVAL,
      ],
      // Counters of queue pairs, and sub-devices: there are none.
      ['counter without device', 'STAT_GET', ACK, [...ofQps, ...counter], EINVAL],
      ['counter without port', 'STAT_GET', ACK, [...index, ...ofQps, ...counter], EINVAL],
      ['counter', 'STAT_GET', ACK, [...index, ...port, ...ofQps, ...counter], ENOENT],
      ['no queue pair', 'STAT_DEL', ACK, [...index, ...port, ...ofQps, ...counter, ...unknownQp], ENOENT],
      ['no counter', 'STAT_DEL', ACK, [...index, ...port, ...ofQps, ...unknownQp], EINVAL],
      ['no name', 'NEWDEV', ACK, index, EINVAL],
      ['no name', 'DELDEV', ACK, index, EOPNOTSUPP],
      // Raw data: no object has it.
      ['no objects', 'RES_SRQ_GET_RAW', DUMP, index, listed(0)],
      ['no object', 'RES_SRQ_GET_RAW', ACK, [...index, ...attribute(number('RES_SRQN'), [9, 0, 0, 0])], ENOENT],
      ['no number', 'RES_MR_GET_RAW', ACK, index, EINVAL],
      ['no device', 'RES_QP_GET_RAW', DUMP, [], EINVAL],
    ]
    for (const [what, command, flags, body, expected] of rows) {
      await socket.send(withBody(requestOf(command, [], flags), body))
      const answers = socket.received()
      const end = answers.find(({ type }) => type < NlmsgType.FIRST)
      assert.ok(end, `${command}: ${what}`)
      const errno = errnoOf(end)
      const actual = Array.isArray(expected) ? [errno, answers.length - 1] : errno
      assert.deepEqual(actual, expected, `${command}: ${what}`)
    }
  })

  it('gets a message (NETLINK_EXT_ACK) about malformed attributes and refused changes', async t => {
    const { socket } = await setUp(t)
    const shortIndex = [6, 0, NldevAttributes.DEV_INDEX.number, 0, 0, 0, 0, 0] // length 6: a value of two bytes
    const hasMessage = async (request: Uint8Array): Promise<boolean> => {
      await socket.send(request)
      const [{ flags }] = socket.received()
      return (flags & NlmsgFlags.ACK_TLVS) !== 0
    }
    const malformed = withBody(requestOf('GET'), shortIndex)
    assert.equal(await hasMessage(malformed), false, 'the option is not set')
    assert.equal(await socket.call('SET', NetlinkOption.EXT_ACK, 1n), 0)
    assert.equal(await hasMessage(malformed), true)
    assert.equal(
      await hasMessage(withBody(requestOf('PORT_GET', [], DUMP), shortIndex)),
      false,
      'a list has no message',
    )
    assert.equal(await hasMessage(requestOf('GET', [['DEV_INDEX', 9]])), false)
    assert.equal(await hasMessage(requestOf('SET', [['DEV_INDEX', 9]])), true)
  })

  it('gets answers to all messages before a message with a wrong length', async t => {
    const { socket } = await setUp(t)
    const request = requestOf('SYS_GET', [], ACK)
    for (const length of [0, 15, 17, 0xffff_ffff]) {
      const invalid = request.slice()
      new DataView(invalid.buffer).setUint32(Header.lengthAt, length, true)
      await socket.send(Buffer.concat([request, invalid, request]))
      const answers = socket.received().map(({ type }) => type)
      // Length 17 is valid: the body is the first byte of the next message, the rest of which has a wrong length.
      const expected = [nldevType(NldevCommands.SYS_GET.number), NlmsgType.ERROR]
      assert.deepEqual(answers.slice(0, 2), expected)
      assert.equal(answers.length, length === 17 ? 4 : 2, `length ${length}`)
    }
  })

  it('is answered after datagrams of random bytes', async t => {
    const { client, socket } = await setUp(t, ['127.0.0.1', '127.0.0.2'])
    const context = await client.context()
    await createCq(client, context)
    const body = fc.uint8Array({ maxLength: 64, size: 'max' })
    const unknownCommands = [0, 8, 63]
    const message = fc.record({
      command: fc.constantFrom(...Object.values(NldevCommands).map(({ number }) => number), ...unknownCommands),
      flags: fc.constantFrom(0, DUMP, ACK, DUMP | ACK),
      body,
      lengthError: fc.constantFrom(0, 0, 0, 1, 1000, -17),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 4 }), async all => {
        const datagram = Buffer.concat(
          all.map(one => {
            const bytes = new Uint8Array((Header.bytes + one.body.length + 3) & ~3)
            const view = new DataView(bytes.buffer)
            view.setUint32(Header.lengthAt, Math.max(0, Header.bytes + one.body.length + one.lengthError), true)
            view.setUint16(Header.typeAt, nldevType(one.command), true)
            view.setUint16(Header.flagsAt, REQUEST | one.flags, true)
            bytes.set(one.body, Header.bytes)
            return bytes
          }),
        )
        assert.equal(await socket.send(datagram), datagram.length)
        socket.received()
      }),
      { numRuns: 300 },
    )
    await untilHandled(client)
    socket.received()
    assert.equal((await socket.request('SYS_GET')).errno, 0)
  })
})

it('the close of the last copy of a socket releases its port and descriptors', async t => {
  const daemon = await daemonOf(t, folder)
  const client = dial(t, daemon)
  const watcher = dial(t, daemon)
  await client.hello()
  await watcher.hello()
  const socket = await openTestSocket(client)
  assert.equal(await socket.call('BIND', 0, 0n), 0)
  assert.equal(await socket.call('NAME'), process.pid)
  assert.equal((await watcher.stat()).descriptors, 1)
  client.close()
  await eventually(watcher, ({ descriptors }) => descriptors === 0)
  const next = await openTestSocket(watcher)
  assert.equal(await next.call('BIND', 0, 0n), 0)
  assert.equal(await next.call('NAME'), process.pid)
})
