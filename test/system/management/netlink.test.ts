/*
 * Netlink (RDMA_NLDEV): sockets, iproute2's `rdma`, answers to requests, events, and devices of any name.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, it } from 'node:test'
import { inspect } from 'node:util'
import { connect, listen, open } from '../../../src/library/index.ts'
import { MonitorEvent, NetlinkOption, NldevResources, NlmsgFlags, NlmsgType } from '../../../src/spec/linux/nldev.ts'
import { decodeAttributes, type Entries, type Entry, encodeAttributes } from '../../../src/uapi/nldev/attributes.ts'
import { type Message, writeMessage } from '../../../src/uapi/nldev/messages.ts'
import { dial } from '../../daemon/client.ts'
import { attributeOf, errnoOf, openTestSocket } from '../../daemon/netlink/test-socket.ts'
import { recorded } from '../../uapi/nldev/recorded.ts'
import { canMakeNamespaces, ip, twoNamespaces } from '../namespaces.ts'
import { assertGoodPair, runPair } from '../pairs/pingpong.ts'
import {
  freePort,
  isEmpty,
  lacking,
  NOBODY,
  noOtherUser,
  ownProgram,
  run,
  start,
  startDaemon,
  TWO_DEVICES,
  untilListening,
  userdma,
} from '../programs.ts'
import { assertShowsIdentifiers, assertShowsObjects, shell, startServers } from './rdma-tool.ts'

const netlink = ownProgram('netlink')

describe('sockets of NETLINK_RDMA', { skip: lacking(netlink) }, () => {
  it('behave as netlink(7) says', async t => {
    const daemon = await startDaemon(t)
    const { status, stdout, stderr } = await run(t, netlink, [], { env: daemon.env })
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'right\n', stderr: '' })
    await daemon.settled(isEmpty)
  })

  it('do not exist without a daemon', async t => {
    const daemon = await startDaemon(t)
    const { status, stderr } = await run(t, netlink, [], {
      env: { ...daemon.env, USERDMA_SOCKET: `${daemon.socket}.none` },
    })
    assert.equal(status, 1)
    assert.match(stderr, /no daemon serves this socket/)
  })
})

describe('rdma', { skip: lacking('rdma', 'ibv_rc_pingpong', 'ibv_srq_pingpong') }, () => {
  const version = spawnSync('rdma', ['-V'], { encoding: 'utf8' }).stdout ?? ''
  /** The recordings of test/fixtures/netlink for this version of `rdma`. */
  const recordings = version.includes('6.1.0') ? '6.1' : '6.15-on-6.12'

  it('shows devices, links, objects and counters as on Linux', t => assertShowsObjects(t, recordings))

  it('shows identifiers of rdma_cm as on Linux', { skip: lacking('rping', 'ucmatose') }, t =>
    assertShowsIdentifiers(t, recordings),
  )

  it('shows identifiers of the library, which are objects of their device', async t => {
    const daemon = await startDaemon(t, { devices: TWO_DEVICES })
    const { socket } = daemon
    const [clientDevice, serverDevice] = [await open({ socket }), await open({ socket, device: 'rxe1' })]
    for (const device of [clientDevice, serverDevice]) t.after(() => device.close())
    const server = await listen('rdma://0.0.0.0:7471', { device: serverDevice })
    const connecting = connect('rdma://127.0.0.2:7471', { device: clientDevice })
    for await (const request of server) {
      await request.accept()
      break
    }
    await connecting
    const { output } = await shell(t, daemon, 'rdma res show cm_id')
    assert.deepEqual(
      [...output.matchAll(/^link (\S+).* state (\S+).* pid (\d+)/gm)].map(([, ...fields]) => fields).sort(),
      [
        ['rxe0/1', 'CONNECT', `${process.pid}`],
        ['rxe1/-', 'LISTEN', `${process.pid}`],
        ['rxe1/1', 'CONNECT', `${process.pid}`],
      ],
      output,
    )
    const [, number] = / cm-idn (\d+) /.exec(output) ?? []
    assert.match((await shell(t, daemon, `rdma res show cm_id cm-idn ${number}`)).output, /^link rxe/)
    assert.match((await shell(t, daemon, 'rdma res')).output, /rxe0:.* cm_id 1 .*\n.*rxe1:.* cm_id 2 /)
  })

  it('adds, renames and deletes devices', async t => {
    const daemon = await startDaemon(t)
    const assertOutput = async (command: string, status: number, pattern: RegExp): Promise<void> => {
      const ours = await shell(t, daemon, command)
      assert.match(ours.output, pattern, command)
      assert.equal(ours.status, status, command)
    }
    await assertOutput(
      'rdma link add rxe1 type rxe netdev lo',
      1,
      /^Error: interface lo has a device already, rxe0\.\nerror: File exists$/m,
    )
    await assertOutput(
      'rdma link add rxe1 type rxe netdev nosuch',
      1,
      /no interface nosuch in the daemon's network namespace\.\nerror: No such device$/m,
    )
    await assertOutput(
      'rdma link add rxe1 type nosuch netdev lo',
      1,
      /device type "nosuch" does not exist.*\nerror: Invalid argument$/m,
    )
    await assertOutput('rdma link add r%d type rxe netdev lo', 1, /device name "r%d".*\nerror: Invalid argument$/m)
    await assertOutput('rdma link del nosuch', 1, /^Wrong device name - nosuch$/m)
    await assertOutput('rdma dev set rxe0 name rxe0', 0, /^$/)
    await assertOutput('rdma dev set rxe0 name a/b', 1, /error: Invalid argument/)
    await assertOutput('rdma dev set rxe0 name mlx5_0', 0, /^$/)
    await assertOutput(
      'ls /sys/class/infiniband; cat /sys/class/infiniband_verbs/uverbs0/ibdev',
      0,
      /^mlx5_0\nmlx5_0\n$/,
    )
    await assertOutput('cat /sys/class/infiniband/mlx5_0/ports/1/hw_counters/sent_pkts', 0, /^0\n$/)
    await assertOutput('ibv_devinfo -d mlx5_0', 0, /^hca_id:\tmlx5_0$/m)
    await assertOutput('rdma link del mlx5_0', 0, /^$/)
    await assertOutput('rdma dev; ls /sys/class/infiniband', 0, /^$/)
    await assert.rejects(open({ socket: daemon.socket }), /no device in a network; there are none/)
    await assertOutput('rdma link add rxe0 type rxe netdev lo', 0, /^$/)
    await assertOutput('rdma link', 0, /^link rxe0\/1 state ACTIVE physical_state LINK_UP netdev lo $/m)
    assertGoodPair(await runPair(t, daemon, ['-g', '1', '-n', '50']))
  })

  it('renames a device while a program uses it', async t => {
    const daemon = await startDaemon(t, { devices: TWO_DEVICES })
    const port = String(await freePort())
    const device = await open({ socket: daemon.socket, device: 'rxe0' })
    t.after(() => device.close())
    const server = start(t, 'ibv_rc_pingpong', ['-d', 'rxe0', '-g', '1', '-p', port], { env: daemon.env })
    await untilListening(Number(port), server.ended)
    assert.deepEqual(await shell(t, daemon, 'rdma dev set rxe0 name other'), { status: 0, output: '' })
    assert.equal((await shell(t, daemon, 'rdma dev set other name rxe1')).status, 1)
    const client = await run(t, 'ibv_rc_pingpong', ['-d', 'other', '-g', '1', '-p', port, 'localhost'], {
      env: daemon.env,
    })
    assert.equal(client.status, 0, client.stderr)
    assert.equal((await server.ended).status, 0)
    assert.ok(device.counters().hw_counters.sent_pkts > 0)
    assert.deepEqual(
      (await daemon.stat()).devices.map(({ name }) => name),
      ['other', 'rxe1'],
    )
    assert.match((await shell(t, daemon, `${userdma} stat --socket ${daemon.socket}`)).output, /other/)
  })

  it('lets other users query without keys, but not change anything', { skip: noOtherUser() }, async t => {
    const daemon = await startDaemon(t, { guest: NOBODY })
    await startServers(t, daemon)
    const shellAsNobody = (command: string) =>
      shell(t, daemon, `setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups ${command}`)
    assert.match((await shell(t, daemon, 'rdma -d res show mr')).output, /rkey 0x[0-9a-f]+ lkey 0x/)
    const { output } = await shellAsNobody('rdma -d res show mr')
    assert.match(output, /^dev rxe0 mrn \d+ mrlen 4096 pdn \d+ pid \d+ comm ibv_/m)
    assert.doesNotMatch(output, /key/)
    for (const command of ['link add rxe1 type rxe netdev lo', 'link del rxe0', 'dev set rxe0 name rxe1'])
      assert.match((await shellAsNobody(`rdma ${command}`)).output, /error: Operation not permitted/, command)
    assert.match((await shellAsNobody('rdma dev')).output, /^0: rxe0: /)
  })
})

/** Attributes whose values differ from Linux's. */
const UNCOMPARED: ReadonlySet<string> = new Set([
  ...['NODE_GUID', 'SYS_IMAGE_GUID', 'NDEV_INDEX', 'NDEV_NAME', 'RES_SUMMARY_ENTRY_CURR', 'STAT_HWCOUNTER_ENTRY_VALUE'],
  ...['RES_LQPN', 'RES_PID', 'RES_PDN', 'RES_CQN', 'RES_MRN', 'RES_CTXN', 'RES_SRQN', 'RES_RKEY', 'RES_LKEY'],
  ...['RES_LOCAL_DMA_LKEY', 'MIN_RANGE', 'MAX_RANGE'],
])
const SINCE_LINUX_7_3 = 'RES_SUMMARY_ENTRY_MAX'
/** Bits of CAP_FLAGS: XRC (20), which Linux's rxe lacks, and FLUSH_PERSISTENT (39), which userdma lacks. */
const UNCOMPARED_FLAGS = (1n << 20n) | (1n << 39n)

/** Attributes whose entries have no specified order. */
const TABLES: ReadonlySet<string> = new Set(Object.values(NldevResources).map(({ table }) => table))

/** Whether the entry is an object of a client in the kernel. */
const isOfKernel = ([, value]: Entry): boolean =>
  Array.isArray(value) && (value as Entries).some(([name]) => name === 'RES_KERN_NAME')

/** Whether the entry is a counter of congestion, which Linux has for mlx5. */
const isOfCongestion = ([name, value]: Entry): boolean =>
  name === 'STAT_HWCOUNTER_ENTRY' && /'[nr]p_/.test(inspect(value, { depth: 9 }))

const comparable = (entries: Entries): unknown[] =>
  entries
    .filter(entry => entry[0] !== SINCE_LINUX_7_3 && !isOfCongestion(entry))
    .map(([name, value]) => {
      if (UNCOMPARED.has(name)) return name
      if (name === 'CAP_FLAGS') return [name, BigInt(value as bigint) & ~UNCOMPARED_FLAGS]
      if (typeof value !== 'object' || value instanceof Uint8Array) return [name, value]
      const hasNestedFlag = 'flagged' in value
      // Linux lists all objects of its own clients; userdma lists only queue pair 1.
      const inner = (hasNestedFlag ? value.flagged : value).filter(entry => name === 'RES_QP' || !isOfKernel(entry))
      const values = comparable(inner)
      return [name, hasNestedFlag, TABLES.has(name) ? values.map(one => inspect(one, { depth: 9 })).sort() : values]
    })

/** The comparable parts of an answer. */
const answerOf = (messages: readonly Message[]) => ({
  bodies: messages
    .filter(({ type }) => type >= NlmsgType.FIRST)
    .map(({ type, flags, body }) => ({ type, flags, entries: comparable(decodeAttributes(body)) })),
  errors: messages.filter(({ type }) => type === NlmsgType.ERROR).map(errnoOf),
  isDone: messages.some(({ type }) => type === NlmsgType.DONE),
})

describe('requests of iproute2', { skip: lacking('ibv_rc_pingpong', 'ibv_srq_pingpong') }, () => {
  it('of 6.15 are answered as by Linux 6.12', async t => {
    const daemon = await startDaemon(t)
    await startServers(t, daemon)
    const client = dial(t, daemon)
    await client.hello()
    const socket = await openTestSocket(client)
    const recording = recorded('nldev-6.12.abilog.gz')
    const [firstMessage] = (await socket.request('RES_QP_GET', [['DEV_INDEX', 0]], NlmsgFlags.DUMP)).entries
    const [, firstQp] = (attributeOf(firstMessage, 'RES_QP') as Entries)[0]
    // In requests that name a queue pair, this one replaces the recorded one.
    const qpn = attributeOf(firstQp as Entries, 'RES_LQPN') as number
    let compared = 0
    for (const [i, request] of recording.entries()) {
      if (!request.sent) continue
      // From here on the recorded commands change devices.
      if (request.command.startsWith('rdma link add')) break
      // Refused by userdma.
      if (request.command.startsWith('rdma system set netns')) continue
      const nextRequest = recording.findIndex(({ sent }, j) => j > i && sent)
      const entries = decodeAttributes(request.body).map(
        ([name, value]): Entry => (name === 'RES_LQPN' ? [name, qpn] : [name, value]),
      )
      const datagram = writeMessage({ ...request, body: encodeAttributes(entries) })
      assert.equal(await socket.send(datagram), datagram.length)
      const answer = recording.slice(i + 1, nextRequest < 0 ? undefined : nextRequest)
      // For some requests the recorded program did not read all messages.
      const ours = socket.received().slice(0, answer.length)
      assert.deepEqual(answerOf(ours), answerOf(answer), request.command)
      compared++
    }
    assert.ok(compared > 50, `${compared}`)
  })
})

/** RDMA_NL_GROUP_NOTIFY */
const NOTIFY_GROUP = 4n

describe('the interface of a device', () => {
  it('is renamed, deleted and replaced: listeners are notified', async t => {
    if (!canMakeNamespaces(t)) return
    const [netns] = twoNamespaces(t, 1500)
    const daemon = await startDaemon(t, { devices: ['mlx5_0@10.99.0.1'], link: 'udp', netns })
    const client = dial(t, daemon)
    await client.hello()
    const socket = await openTestSocket(client)
    assert.equal(await socket.call('SET', NetlinkOption.ADD_MEMBERSHIP, NOTIFY_GROUP), 0)
    const events: string[] = []
    const untilEvent = async (last: string): Promise<void> => {
      while (events.at(-1) !== last) {
        await client.stat()
        for (const { body } of socket.received()) {
          const entries = decodeAttributes(body)
          const type = attributeOf(entries, 'EVENT_TYPE')
          const [name] = Object.entries(MonitorEvent).find(([, number]) => number === type) ?? ['?']
          events.push([name, attributeOf(entries, 'DEV_NAME'), attributeOf(entries, 'NDEV_NAME')].join(' '))
        }
      }
    }
    ip('-n', netns, 'link', 'set', 'v0', 'down')
    ip('-n', netns, 'link', 'set', 'v0', 'name', 'v9')
    await untilEvent('NETDEV_RENAME  v9')
    ip('-n', netns, 'link', 'delete', 'v9')
    ip('-n', netns, 'link', 'add', 'v8', 'type', 'veth', 'peer', 'name', 'v7')
    ip('-n', netns, 'address', 'add', '10.99.0.1/24', 'dev', 'v8')
    await untilEvent('NETDEV_ATTACH mlx5_0 v8')
    assert.deepEqual(events, ['NETDEV_RENAME  v9', 'NETDEV_DETACH mlx5_0 v9', 'NETDEV_ATTACH mlx5_0 v8'])
  })
})

describe('a device of any name', { skip: lacking('ibv_rc_pingpong', 'ibv_devinfo') }, () => {
  it('finds its provider by the driver name of netlink', async t => {
    const daemon = await startDaemon(t, { devices: ['mlx5_0@127.0.0.1', 'null0', 'bnxt_re1@127.0.0.2'] })
    const { stdout } = await run(t, 'ibv_devices', [], { env: daemon.env })
    assert.match(stdout, /^ {4}mlx5_0 .*\n {4}bnxt_re1 /m)
    assert.equal((await run(t, 'ibv_devinfo', ['-d', 'bnxt_re1'], { env: daemon.env })).status, 0)
    assertGoodPair(await runPair(t, daemon, ['-d', 'mlx5_0', '-g', '1', '-n', '50']))
    await daemon.settled(isEmpty)
  })
})
