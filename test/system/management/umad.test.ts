/*
 * umad files as libibumad programs use them. Expected results are those of Linux 6.12's rxe with the same program
 * (test/programs/connections/umad.c); docs/reference/management-datagrams.md lists differences.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { CharDevices, rdevOf } from '../../../src/daemon/files/chardevs.ts'
import { MAD_MESSAGE_BYTES } from '../../../src/spec/classes/mad/mad_channel.ts'
import { MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import {
  CLASS_PORT_INFO,
  MAD_HEADER_BYTES,
  MadClass,
  MadMethod,
  PERFORMANCE_PORT_OFFSET,
  RMPP_HEADER_END,
  RMPP_VERSION,
  RmppFlag,
  RmppType,
} from '../../../src/spec/wire/management.ts'
import { RegisterAgent2, UmadHeader } from '../../../src/uapi/linux/umad-layout.ts'
import {
  assertFaultsInjected,
  isEmpty,
  lacking,
  NOBODY,
  noGuests,
  ownProgram,
  run,
  runUserdma,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
  TWO_DEVICES,
} from '../programs.ts'
import { StepProgram } from '../steps.ts'
import { ipGid, MadOffset, madOf, type Registration, UMAD_PROGRAM, UmadProgram } from './umad.ts'

/** Results of steps. */
const [ENOENT, EIO, EAGAIN, ENOMEM, EACCES, EFAULT] = [-2, -5, -11, -12, -13, -14]
const [EINVAL, ENOTTY, ENODATA] = [-22, -25, -61]
const EPROTONOSUPPORT = -93
/** Positive: an errno in a header. */
const ETIMEDOUT = 110
const { GET, SET, SEND, TRAP, RESPONSE } = MadMethod
const { PERFORMANCE, SUBNET_ADMINISTRATION, COMMUNICATION } = MadClass
/** A vendor class with RMPP. */
const VENDOR = 0x32
const OUI = 0x1405
const POLLOUT = 4
/** IB_USER_MAD_USER_RMPP: the program has its own RMPP. */
const USER_RMPP = 1
/** Bytes of a message, and result of its write. */
const WRITTEN = UmadHeader.bytes + MAD_BYTES
/** Attributes of performance management. */
const [PORT_COUNTERS, PORT_COUNTERS_EXTENDED, UNKNOWN_ATTRIBUTE] = [0x12, 0x1d, 0x77]
/** Offsets in messages of performance management: BaseVersion of ClassPortInfo, and PortRcvPkts of both counters. */
const BASE_VERSION_OFFSET = 64
const [RCV_PKTS_OFFSET, EXTENDED_RCV_PKTS_OFFSET] = [100, 96]
/** MAD status: the combination of method and attribute is not supported (IBA 13.4.7). */
const UNSUPPORTED = 0x0c
const TALK = ownProgram('umad_talk')

const skip = lacking(UMAD_PROGRAM, TALK, 'rdma')

describe('umad files', { skip }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  it('exist as on Linux 6.12, without issm files', async t => {
    const { stdout } = await run(
      t,
      'sh',
      ['-c', 'cd /sys/class/infiniband_mad; grep -r . abi_version umad1; stat -c "%A %t:%T" /dev/infiniband/umad1; ls'],
      { env: daemon.env },
    )
    assert.deepEqual(stdout.trim().split('\n').sort(), [
      'abi_version',
      'abi_version:5',
      'crw------- e7:1',
      'umad0',
      'umad1',
      'umad1/dev:231:1',
      'umad1/ibdev:rxe1',
      'umad1/port:1',
      'umad1/uevent:DEVNAME=infiniband/umad1',
      'umad1/uevent:MAJOR=231',
      'umad1/uevent:MINOR=1',
    ])
  })

  it('register agents with the numbers and errors of Linux', async t => {
    const program = await UmadProgram.start(t, daemon)
    const vendor = { mgmtClass: VENDOR, version: 1 }
    const pm = { mgmtClass: PERFORMANCE, version: 1 }
    const sa = { mgmtClass: SUBNET_ADMINISTRATION, version: 2 }
    const cases: readonly (readonly [title: string, registration: Registration, answer: number])[] = [
      ['queue pair 0', { qpn: 0, mgmtClass: 1, version: 1 }, EPROTONOSUPPORT],
      ['queue pair 0 for sending', { qpn: 0 }, EPROTONOSUPPORT],
      ['another queue pair', { qpn: 2 }, EINVAL],
      ['messages of the CM, which have an agent', { mgmtClass: COMMUNICATION, version: 2, methods: [SEND] }, EINVAL],
      ['messages of another version of the CM', { mgmtClass: COMMUNICATION, version: 1, methods: [SEND] }, 0],
      ['RMPP for a class without it', { ...pm, rmpp: 1 }, EINVAL],
      ['another version of RMPP', { ...sa, rmpp: 2 }, EINVAL],
      ["a vendor's class without an OUI", { ...vendor, methods: [GET] }, EINVAL],
      ['an OUI of 25 bits', { ...vendor, oui: 0x100_0000 }, EINVAL],
      ['an invalid class', { mgmtClass: 80, version: 1 }, EINVAL],
      ['the last class', { mgmtClass: 79, version: 1, oui: OUI }, 1],
      ['class version 8', { ...pm, version: 8 }, 2],
      ['subnet management', { mgmtClass: 1, version: 1 }, EINVAL],
      ['RMPP by the program without a class', { flags: USER_RMPP }, EINVAL],
      ['RMPP without a class', { rmpp: 1 }, 3],
      ['method Get', { ...pm, methods: [GET] }, 4],
      ['method Get again', { ...pm, methods: [GET] }, EINVAL],
      ['method Set', { ...pm, methods: [SET] }, 5],
      ['a method in the second half of the mask', { ...pm, methods: [0x41] }, 6],
      ['RMPP by the program for a class without it', { ...pm, flags: USER_RMPP }, 7],
      ['RMPP by the program', { ...sa, flags: USER_RMPP, rmpp: 1 }, 8],
      ['directed routes', { mgmtClass: 0x81, version: 1 }, EINVAL],
    ]
    for (const [title, registration, answer] of cases) assert.equal(await program.register(registration), answer, title)
    const unknownFlag = 2
    // The answer has the known flags.
    assert.deepEqual(await program.registerWithFlags({ flags: USER_RMPP | unknownFlag }), {
      agent: EINVAL,
      flags: USER_RMPP,
    })
    assert.deepEqual(
      [(await program.step('unregister 0')).result, (await program.step('unregister 0')).result],
      [0, EINVAL],
    )
    assert.equal((await program.step('unregister 40')).result, EINVAL)
    assert.equal((await program.step('pkeys')).result, EINVAL)
    // An agent gets the lowest free number; a file has at most 32.
    for (const agent of [0, ...Array.from({ length: 23 }, (_, i) => i + 9)])
      assert.equal(await program.register({}), agent)
    assert.equal(await program.register({}), ENOMEM)
    // On Linux only the number of the queue pair is checked before.
    assert.equal(await program.register({ mgmtClass: 0x80 }), ENOMEM)
    assert.equal(await program.register({ qpn: 0 }), ENOMEM)
    assert.equal(await program.register({ qpn: 2 }), EINVAL)

    // Another file of the port: only one agent of a port has a method of a class.
    assert.ok((await program.open(0)) >= 0)
    assert.deepEqual([(await program.step('pkeys')).result, (await program.step('pkeys')).result], [0, 0])
    assert.equal(await program.register({ ...pm, methods: [SET] }), EINVAL)
    assert.ok((await program.open(1)) >= 0)
    assert.equal(await program.register({ ...pm, methods: [SET] }), 0)
    await program.close()
  })

  it('refuse invalid messages, paths and calls', async t => {
    const program = await UmadProgram.start(t, daemon)
    const data = madOf({ mgmtClass: PERFORMANCE, method: GET })
    const long = madOf({ mgmtClass: PERFORMANCE, method: GET }, 300)
    assert.equal((await program.step('poll 0')).view.getUint16(0, true), POLLOUT)
    assert.deepEqual([await program.read(), await program.read(10)], [EAGAIN, EINVAL])
    const rdmaIoctlMagic = 0x1b
    const unknownRequest = (rdmaIoctlMagic << 8) | 77
    assert.equal((await program.step('ioctl 0')).result, ENOTTY)
    assert.equal((await program.step(`ioctl ${unknownRequest}`)).result, ENOTTY)
    assert.equal(await program.send({ data }), EIO)
    assert.equal((await program.step('write 20 00')).result, EINVAL)
    assert.equal(await program.register({ mgmtClass: PERFORMANCE, version: 1 }), 0)
    const send = async (message: Partial<Parameters<UmadProgram['send']>[0]>) => program.send({ data, ...message })
    assert.equal(await send({ agent: 32 }), EINVAL)
    assert.equal(await send({ agent: 1 }), EIO)
    assert.equal(await send({ grh: 0 }), EINVAL)
    assert.equal(await send({ gidIndex: 9 }), ENODATA)
    assert.equal(await send({ gidIndex: 0 }), EINVAL, 'an IPv6 source and an IPv4 destination')
    assert.equal(await send({ data: long }), EINVAL)
    assert.equal(await send({ data: data.subarray(0, RMPP_HEADER_END - 1) }), EINVAL)
    assert.equal(await send({ data: data.subarray(0, RMPP_HEADER_END) }), UmadHeader.bytes + RMPP_HEADER_END)
    assert.equal(await send({ data: madOf({ mgmtClass: SUBNET_ADMINISTRATION, method: GET }, 40) }), EINVAL)
    // Only the flag Active of the RMPP header counts: a message with the flag is sent as DATA and may be long.
    const rmpp = { mgmtClass: SUBNET_ADMINISTRATION, version: 2, rmpp: 1 }
    assert.equal(await program.register(rmpp), 1)
    const longSa = madOf({ mgmtClass: SUBNET_ADMINISTRATION, method: GET, version: 2 }, 1000)
    assert.equal(await send({ agent: 1, data: longSa }), EINVAL)
    longSa.set([RMPP_VERSION, RmppType.ACK, RmppFlag.ACTIVE], MAD_HEADER_BYTES)
    assert.equal(await send({ agent: 1, data: longSa }), UmadHeader.bytes + longSa.length)
    assert.equal(await send({ agent: 1, data: longSa.subarray(0, 60) }), UmadHeader.bytes + 60)
    assert.equal((await program.step('open /dev/infiniband/umad7')).result, ENOENT)
    await program.close()
  })

  it('carry messages of the maximum length, and refuse longer ones', async t => {
    const client = await UmadProgram.start(t, daemon, 0)
    const server = await UmadProgram.start(t, daemon, 1)
    const vendor = { mgmtClass: VENDOR, version: 1, oui: OUI, rmpp: 1 }
    assert.equal(await client.register(vendor), 0)
    assert.equal(await server.register({ ...vendor, methods: [SEND] }), 0)
    const data = madOf({ mgmtClass: VENDOR, method: SEND, oui: OUI }, MAD_MESSAGE_BYTES + 1)
    data.set([RMPP_VERSION, RmppType.DATA, RmppFlag.ACTIVE], MAD_HEADER_BYTES)
    assert.equal(await client.send({ data }), EINVAL)
    const longest = data.subarray(0, MAD_MESSAGE_BYTES)
    longest.fill(7, -8)
    const bytes = UmadHeader.bytes + MAD_MESSAGE_BYTES
    assert.equal(await client.send({ data: longest }), bytes)
    const { length, data: received } = await server.receive(bytes)
    assert.equal(length, bytes)
    assert.deepEqual(received.subarray(-9), longest.subarray(-9))
    for (const one of [client, server]) await one.close()
  })

  it('match responses with requests, and report unanswered requests', async t => {
    const client = await UmadProgram.start(t, daemon, 0)
    const server = await UmadProgram.start(t, daemon, 1, 'wait')
    assert.equal(await client.register({ mgmtClass: VENDOR, version: 1, oui: OUI }), 0)
    assert.equal(await server.register({ mgmtClass: VENDOR, version: 1, oui: OUI, methods: [GET] }), 0)
    const data = madOf({ mgmtClass: VENDOR, method: GET, tid: 77, oui: OUI })
    const waiting = server.read()
    assert.equal(await client.send({ data, timeout: 10_000 }), WRITTEN)
    assert.equal(await client.send({ data, timeout: 10_000 }), EINVAL, 'the same transaction ID again')
    const request = await waiting
    assert.ok(typeof request === 'object')
    assert.deepEqual(
      { ...request, data: request.data.subarray(MadOffset.TID_LOW) },
      { agent: 0, status: 0, length: WRITTEN, qpn: 1, gid: ipGid(1), data: data.subarray(MadOffset.TID_LOW) },
    )
    const response = request.data.slice()
    response[MadOffset.METHOD] = GET | RESPONSE
    response[100] = 9 // data
    assert.equal(await server.send({ data: response, gid: ipGid(1) }), WRITTEN)
    const { agent, status, data: answer } = await client.receive()
    assert.deepEqual([agent, status, answer], [0, 0, response])
    // No request waits for the second response. Send has no agent, and gets no response.
    assert.equal(await server.send({ data: response, gid: ipGid(1) }), WRITTEN)
    const unregistered = madOf({ mgmtClass: VENDOR, method: SEND, tid: 78, oui: OUI })
    assert.equal(await client.send({ data: unregistered, timeout: 20, retries: 2 }), WRITTEN)
    assert.equal((await client.step('poll 30000')).result, 1)
    const minBytes = UmadHeader.bytes + MAD_HEADER_BYTES
    assert.deepEqual([await client.read(UmadHeader.bytes), await client.read(minBytes - 1)], [EINVAL, EINVAL])
    const unanswered = await client.read(minBytes)
    assert.ok(typeof unanswered === 'object')
    assert.deepEqual(
      [unanswered.status, unanswered.gid, unanswered.data.length],
      [ETIMEDOUT, ipGid(2), MAD_HEADER_BYTES],
    )
    assert.deepEqual(
      unanswered.data.subarray(MadOffset.TID_LOW),
      unregistered.subarray(MadOffset.TID_LOW, MAD_HEADER_BYTES),
    )
    assert.equal(await client.read(), EAGAIN)
    for (const one of [client, server]) await one.close()
  })

  it('answer Get and Set for which no agent is registered', async t => {
    const program = await UmadProgram.start(t, daemon)
    assert.equal(await program.register({}), 0)
    const request = async (mgmtClass: number, method: number, attribute: number): Promise<Uint8Array> => {
      const data = madOf({ mgmtClass, method, attribute, version: mgmtClass === COMMUNICATION ? 2 : 1 })
      data[PERFORMANCE_PORT_OFFSET] = 1
      assert.equal(await program.send({ data, timeout: 10_000 }), WRITTEN)
      const { status, data: answer } = await program.receive()
      assert.deepEqual([status, answer[MadOffset.METHOD]], [0, GET | RESPONSE])
      return answer
    }
    const statusOf = (mad: Uint8Array) => Buffer.from(mad).readUInt16BE(MadOffset.STATUS)
    const info = await request(PERFORMANCE, GET, CLASS_PORT_INFO)
    const [baseVersion, classVersion] = info.subarray(BASE_VERSION_OFFSET)
    assert.deepEqual([statusOf(info), baseVersion, classVersion], [0, 1, 1])
    const counters = Buffer.from(await request(PERFORMANCE, GET, PORT_COUNTERS))
    const extended = Buffer.from(await request(PERFORMANCE, GET, PORT_COUNTERS_EXTENDED))
    assert.deepEqual([statusOf(counters), counters[PERFORMANCE_PORT_OFFSET]], [0, 1])
    // The requests are among the received packets.
    const receivedPackets = counters.readUInt32BE(RCV_PKTS_OFFSET)
    assert.ok(receivedPackets >= 2)
    assert.equal(Number(extended.readBigUInt64BE(EXTENDED_RCV_PKTS_OFFSET)), receivedPackets + 1)
    for (const [mgmtClass, method, attribute] of [
      [PERFORMANCE, SET, PORT_COUNTERS],
      [PERFORMANCE, GET, UNKNOWN_ATTRIBUTE],
      [SUBNET_ADMINISTRATION, GET, 1],
      [COMMUNICATION, GET, 1],
      [VENDOR, SET, 1],
    ] as const)
      assert.equal(statusOf(await request(mgmtClass, method, attribute)), UNSUPPORTED)
    // Other methods than Get and Set, and subnet management, get no response.
    for (const [mgmtClass, method] of [
      [PERFORMANCE, TRAP],
      [SUBNET_ADMINISTRATION, 0x12],
      [1, GET],
      [0x81, GET],
    ] as const) {
      assert.equal(await program.send({ data: madOf({ mgmtClass, method }), timeout: 20 }), WRITTEN)
      assert.equal((await program.receive()).status, ETIMEDOUT)
    }
    await program.close()
  })

  it('use the header without P_Key index by default', async t => {
    const program = await UmadProgram.start(t, daemon)
    assert.equal(await program.registerOld({ mgmtClass: PERFORMANCE, version: 1 }), 0)
    assert.equal(await program.registerOld({ qpn: 0 }), EPROTONOSUPPORT)
    program.headerBytes = UmadHeader.bytesWithoutPkey
    const messageBytes = UmadHeader.bytesWithoutPkey + MAD_BYTES
    const request = madOf({ mgmtClass: PERFORMANCE, method: GET })
    assert.equal(await program.send({ data: request, timeout: 10_000 }), messageBytes)
    const { length, data } = await program.receive()
    assert.deepEqual([length, data.length, data[MadOffset.METHOD]], [messageBytes, MAD_BYTES, GET | RESPONSE])
    await program.close()
  })

  it('return the agent of each message, also after it was unregistered', async t => {
    const client = await UmadProgram.start(t, daemon, 0)
    const server = await UmadProgram.start(t, daemon, 1)
    assert.equal(await client.register({}), 0)
    for (const [agent, method] of [GET, SET].entries())
      assert.equal(await server.register({ mgmtClass: VENDOR, version: 1, oui: OUI, methods: [method] }), agent)
    for (const method of [SET, GET, SET])
      assert.equal(await client.send({ data: madOf({ mgmtClass: VENDOR, method, oui: OUI }) }), WRITTEN)
    assert.equal((await server.receive()).agent, 1)
    assert.equal((await server.step('poll 30000')).result, 1)
    assert.equal((await server.step('unregister 0')).result, 0)
    assert.deepEqual([(await server.receive()).agent, (await server.receive()).agent], [0, 1])
    for (const one of [client, server]) await one.close()
  })

  it('keep a message for the next read if the buffer is bad', async t => {
    const client = await UmadProgram.start(t, daemon, 0)
    const server = await UmadProgram.start(t, daemon, 1)
    assert.equal(await client.register({}), 0)
    assert.equal(await server.register({ mgmtClass: VENDOR, version: 1, oui: OUI, methods: [GET] }), 0)
    for (const attribute of [1, 2])
      assert.equal(await client.send({ data: madOf({ mgmtClass: VENDOR, method: GET, oui: OUI, attribute }) }), WRITTEN)
    assert.equal((await server.step('poll 30000')).result, 1)
    for (let tries = 0; tries < 3; tries++) assert.equal((await server.step(`fault ${WRITTEN}`)).result, EFAULT)
    for (const attribute of [1, 2])
      assert.equal(Buffer.from((await server.receive()).data).readUInt16BE(MadOffset.ATTRIBUTE), attribute)
    assert.equal(await server.read(), EAGAIN)
    assert.equal((await server.step('poll 1')).result, 0)
    for (const one of [client, server]) await one.close()
  })

  it('appear in traces as calls of their classes', async t => {
    const registration = Buffer.alloc(RegisterAgent2.bytes)
    registration[RegisterAgent2.qpn] = 1
    const steps = `open /dev/infiniband/umad0\\nregister2 ${registration.toString('hex')}\\nread 64\\nunregister 0\\n`
    const line = `printf '${steps}' | ${UMAD_PROGRAM}`
    const { stdout, stderr } = await runUserdma(t, [
      'trace',
      '--socket',
      daemon.socket,
      '--abi',
      '--',
      'sh',
      '-c',
      line,
    ])
    const output = stdout + stderr
    assert.match(output, /umad\] fd 3 mad_agent\.create\(channel fd 3, mgmtClass 0, .*\) = 0 \{object 0\}/)
    assert.match(output, /\n {4}umad\n {6}in .*0x[0-9a-f]+.*\n/)
    assert.match(output, /mad_channel\.receive\(.*bufferBytes 0\) = -1 EAGAIN/)
    assert.match(output, /mad_agent\.destroy\(object 0\) = 0/)
  })

  it('are character devices, also for a program that inherits them by exec', async t => {
    const program = await UmadProgram.start(t, daemon)
    const file = await program.open(1)
    const rdev = rdevOf(CharDevices.umad, 1)
    assert.equal((await program.step('stat')).result, rdev)
    await program.step('exec')
    await program.step(`use ${file}`)
    assert.equal((await program.step('stat')).result, rdev)
    assert.equal(await program.register({ mgmtClass: PERFORMANCE, version: 1 }), 0)
  })

  it('are shared with a forked child', async t => {
    const program = await UmadProgram.start(t, daemon)
    assert.equal(await program.register({ mgmtClass: PERFORMANCE, version: 1 }), 0)
    const data = madOf({ mgmtClass: PERFORMANCE, method: GET })
    assert.equal(await program.send({ data, timeout: 10_000 }), WRITTEN)
    assert.equal((await program.step('fork')).result, 0)
    assert.equal((await program.receive()).status, 0)
    assert.equal(await program.send({ data, timeout: 10_000 }), WRITTEN)
    assert.equal((await program.receive()).status, 0)
    assert.equal(await program.register({}), 1)
    await program.close()
  })

  it('are inherited by programs that a shell starts', async t => {
    const registration = Buffer.alloc(RegisterAgent2.bytes)
    registration[RegisterAgent2.qpn] = 1
    const steps = `use 3\nregister2 ${registration.toString('hex')}\npoll 0\n`
    const line = `exec 3<>/dev/infiniband/umad1; printf '${steps}' | ${UMAD_PROGRAM}`
    const { stdout, stderr } = await run(t, 'sh', ['-c', line], { env: daemon.env })
    assert.deepEqual(
      stdout.split('\n').map(output => output.split(' ')[0]),
      ['0', '0', '1', ''],
      stderr,
    )
  })

  it('carry long messages of libibumad, and report the required buffer size', async t => {
    const server = start(t, TALK, ['server', 'rxe1'], { env: daemon.env, stdio: ['pipe', 'pipe', 'pipe'] })
    await server.printed(/ready/)
    const gid = Buffer.from(ipGid(2)).toString('hex')
    // 216 bytes fit into one datagram.
    for (const bytes of [0, 216, 217, 10_000, 500_000]) {
      const { stdout, stderr } = await run(t, TALK, ['client', 'rxe0', gid, String(bytes), '3'], { env: daemon.env })
      assert.equal(stdout, `${bytes} bytes\n`, stderr)
    }
    server.child.stdin?.end()
    assert.equal((await server.ended).status, 0, server.output())
    await daemon.settled(isEmpty)
  })
})

describe('umad files under failures', { skip }, () => {
  it('carry long messages over a lossy network', async t => {
    const daemon = await startDaemon(t, { devices: TWO_DEVICES, fault: 'drop=3%,seed=5' })
    const server = start(t, TALK, ['server', 'rxe1'], { env: daemon.env, stdio: ['pipe', 'pipe', 'pipe'] })
    await server.printed(/ready/)
    const gid = Buffer.from(ipGid(2)).toString('hex')
    const { stdout, stderr } = await run(t, TALK, ['client', 'rxe0', gid, '12000', '20'], { env: daemon.env })
    assert.equal(stdout, '12000 bytes\n', stderr)
    await assertFaultsInjected(daemon)
    server.child.stdin?.end()
    assert.equal((await server.ended).status, 0, server.output())
  })

  it('answer EIO when their device is removed, and wake waiters', async t => {
    const daemon = await startDaemon(t, { devices: TWO_DEVICES })
    const program = await UmadProgram.start(t, daemon, 1)
    const waiting = await UmadProgram.start(t, daemon, 1, 'wait')
    assert.equal(await program.register({ mgmtClass: PERFORMANCE, version: 1 }), 0)
    const data = madOf({ mgmtClass: PERFORMANCE, method: TRAP })
    assert.equal(await program.send({ data, timeout: 60_000 }), WRITTEN)
    const read = waiting.read()
    const { status, stderr } = await run(t, 'rdma', ['link', 'delete', 'rxe1'], { env: daemon.env })
    assert.equal(status, 0, stderr)
    assert.equal(await read, EIO)
    assert.deepEqual([await program.read(), await program.send({ data }), await program.register({})], [EIO, EIO, EIO])
    assert.equal((await program.step('poll 30000')).result, 1)
    assert.equal((await program.step('open /dev/infiniband/umad1')).result, ENOENT)
    assert.equal(await program.open(0), 4, 'descriptor 3 is the file of the removed device')
    assert.equal(await program.register({}), 0)
    for (const one of [program, waiting]) await one.close()
    await daemon.settled(isEmpty)
  })

  it('of killed programs leave nothing: agents, requests, unread messages', async t => {
    const daemon = await startDaemon(t, { devices: TWO_DEVICES })
    const survivor = await UmadProgram.start(t, daemon, 0)
    assert.equal(await survivor.register({ mgmtClass: VENDOR, version: 1, oui: OUI }), 0)
    for (let round = 0; round < 20; round++) {
      const victim = await UmadProgram.start(t, daemon, 1)
      // The agent of the last program has released this method.
      assert.equal(await victim.register({ mgmtClass: VENDOR, version: 1, oui: OUI, methods: [GET] }), 0)
      const data = madOf({ mgmtClass: VENDOR, method: GET, oui: OUI, tid: round })
      assert.equal(await survivor.send({ data }), WRITTEN)
      assert.equal(await victim.send({ data: madOf({ mgmtClass: VENDOR, method: TRAP }), timeout: 60_000 }), WRITTEN)
      assert.equal((await victim.step('poll 30000')).result, 1)
      victim.running.child.kill(round % 2 === 0 ? 'SIGKILL' : 'SIGSTOP')
      victim.running.child.kill('SIGKILL')
      await daemon.settled(({ sessions }) => sessions === 1)
    }
    await survivor.close()
    await daemon.settled(isEmpty)
  })

  it("are refused to guests of root's daemon", { skip: noGuests() }, async t => {
    const daemon = await startDaemon(t, { guest: NOBODY })
    const guest = new StepProgram(t, UMAD_PROGRAM, daemon, NOBODY)
    assert.equal((await guest.step('open /dev/infiniband/umad0')).result, EACCES)
    await guest.close()
  })
})
