/*
 * `userdma trace` with unmodified programs, programs of the library, and descriptors of drivers; captures as tshark
 * reads them.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { parseFrame } from '../../src/transport/wire/frame.ts'
import { parsePacket } from '../../src/transport/wire/packet.ts'
import { readCapture } from '../captures.ts'
import { casesOf } from '../long-run.ts'
import { fixture, repoRoot } from '../paths.ts'
import { skipTest } from '../tools.ts'
import {
  cleanEnvironment,
  freePort,
  lacking,
  ownProgram,
  type Running,
  run,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  type TestDaemon,
  temporaryFolder,
  untilListening,
  userdma,
} from './programs.ts'

const contexts = ownProgram('contexts')

/** Runs ibv_rc_pingpong, the client under `userdma trace`; returns the trace and the path of the capture. */
const tracedPingpong = async (t: Scope, daemon: TestDaemon, args: readonly string[]) => {
  const folder = temporaryFolder(t)
  const calls = join(folder, 'calls.txt')
  const pcap = join(folder, 'packets.pcapng')
  const port = String(await freePort())
  const pingpongArgs = ['-d', 'rxe0', '-g', '1', ...args, '-p', port]
  const server: Running = start(t, 'ibv_rc_pingpong', pingpongArgs, { env: daemon.env })
  await untilListening(Number(port), server.ended)
  const options = ['trace', '--socket', daemon.socket, '-o', calls, '--pcap', pcap]
  const client = await run(t, userdma, [...options, '--', 'ibv_rc_pingpong', ...pingpongArgs, 'localhost'])
  assert.equal(client.status, 0, client.stdout + client.stderr)
  assert.match(client.stdout, /iters in/)
  assert.equal((await server.ended).status, 0)
  return { calls: readFileSync(calls, 'utf8'), pcap }
}

/** The called methods, without those that only some versions of libibverbs call. */
const calledMethods = (calls: string): string[] =>
  calls
    .trimEnd()
    .split('\n')
    .map(line => /^\[pid \d+ \S+\] fd \d+ (\S+?)\(/.exec(line)?.[1] ?? line)
    .filter(name => !/^(ioctl$|port\.|device\.query|rc_qp\.query)/.test(name))

describe('userdma trace', { skip: lacking('ibv_rc_pingpong', 'ibv_devinfo') }, () => {
  it('prints every call of a program, decoded', async t => {
    const daemon = await startDaemon(t)
    const { calls } = await tracedPingpong(t, daemon, ['-e', '-n', '10', '-s', '100'])
    const called = calledMethods(calls)
    const before = ['device.open', 'async_fd.create', 'comp_channel.create', 'pd.create', 'mr.create', 'cq.create']
    const connect = ['rc_qp.create', 'rc_qp.modify', 'cq.reqNotify', 'rc_qp.modify', 'rc_qp.modify']
    const after = ['rc_qp.destroy', 'cq.destroy', 'mr.destroy', 'pd.destroy']
    const first = [...before, ...connect]
    assert.deepEqual(called.slice(0, first.length), first, calls)
    assert.deepEqual(called.slice(-after.length), after, calls)
    // One before each wait.
    assert.ok(called.filter(name => name === 'cq.reqNotify').length >= 10, calls)
    assert.match(
      calls,
      /^\[pid \d+ ibv_rc_pingpong\] fd \d+ mr\.create\(pd 0, start 0x[0-9a-f]+, length 100, .*access /m,
    )
    assert.match(
      calls,
      /rc_qp\.modify\(object \d+, state RTR, .*dgid ::ffff:127\.0\.0\.1.*pathMtu MTU_1024.*\) = 0 <0\./,
    )
    assert.match(calls, /rc_qp\.create\(.*\) = 0 \{.*qpNum 0x[0-9a-f]+.*\} <0\./)
    // New descriptors have their numbers in the program, which later calls use.
    const [, channel] = /comp_channel\.create\(\) = 0 \{object fd (\d+)\} </.exec(calls) ?? []
    assert.ok(channel, calls)
    assert.match(calls, new RegExp(`cq\\.create\\(.*channel fd ${channel}\\b`))
    assert.match(calls, /async_fd\.create\(\) = 0 \{object fd \d+\} </)
  })

  it('shows zero fields with -v and --verbose', async t => {
    const daemon = await startDaemon(t)
    const query = async (...options: string[]): Promise<string> => {
      const { stderr } = await run(t, userdma, ['trace', ...options, '--socket', daemon.socket, '--', 'ibv_devinfo'])
      return /port\.query\(.*/.exec(stderr)?.[0] ?? stderr
    }
    assert.doesNotMatch(await query(), /smLid/)
    assert.match(await query('-v'), /\{.*smLid 0\b.*\}/)
    assert.match(await query('--verbose'), /\{.*smLid 0\b.*\}/)
  })

  it('prints calls as a table, by class, by failure and as JSON', async t => {
    const daemon = await startDaemon(t)
    const traced = async (...options: string[]): Promise<string[]> => {
      const args = ['trace', ...options, '--socket', daemon.socket, '--', 'ibv_devinfo']
      const { status, stderr } = await run(t, userdma, args)
      assert.equal(status, 0, stderr)
      return stderr.trimEnd().split('\n')
    }
    const table = await traced('-c')
    assert.match(table[0], /^% time +seconds +usecs\/call +calls +errors method$/)
    assert.ok(table.some(line => / 1 +port\.query$/.test(line)))
    // libibverbs' query for ioctls is no error
    assert.ok(table.some(line => / 1 +ioctl\(QUERY_DEVICE\)$/.test(line)))
    assert.match(table.at(-1) as string, /^100\.00 .* total$/)
    const selected = await traced('--class', 'port,async_fd')
    assert.ok(
      selected.length >= 2 && selected.every(line => /(port\.\w+|async_fd\.create)\(/.test(line)),
      selected.join('\n'),
    )
    // The only failure is a query by which libibverbs finds out whether the kernel has ioctls; --errors omits it.
    assert.deepEqual(await traced('--errors', '--json'), [''])
    const all = (await traced('--json')).map(line => JSON.parse(line))
    assert.deepEqual(
      all.filter(({ ret }) => ret < 0).map(({ attempt, error, dialect, ret }) => ({ attempt, error, dialect, ret })),
      [{ attempt: 'QUERY_DEVICE', error: 'ENOSPC', dialect: 'ioctl', ret: -28 }],
    )
    const rows = (await traced('-c', '--json', '--class', 'port')).map(line => JSON.parse(line))
    assert.equal(rows.find(({ method }) => method === 'port.query').calls, 1)
  })

  it('shows the bytes of calls, with Linux’s names', async t => {
    const { stderr } = await runUserdma(t, ['trace', '--private', '--abi', '--', 'ibv_devinfo'])
    assert.match(stderr, /port\.query\(.*\n {4}ioctl DEVICE\.QUERY_PORT \(object 0, method 2, driver 14\) at 0x/)
    assert.match(stderr, /\n {6}QUERY_PORT_RESP out at 0x[0-9a-f]+, 48 bytes: [0-9a-f]{64}…/)
    assert.match(stderr, /\n {6}WRITE_CMD ex 1 EX_QUERY_DEVICE\n/)
    assert.match(stderr, /CORE_OUT struct ib_uverbs_ex_query_device_resp out at /)
  })

  // chaining.ts: a chain of 503 calls, of which 4 are shown, and a chain whose entry 1 is refused.
  it('shows the chains of programs of the library, entry by entry', async t => {
    const { status, stdout, stderr } = await runUserdma(t, [
      'trace',
      '--private',
      '--class',
      'interface,comp_channel',
      '--',
      process.execPath,
      join(repoRoot, 'dist', 'test', 'system', 'chaining.js'),
    ])
    assert.equal(status, 0, stdout + stderr)
    assert.match(stderr, /comp_channel\.create\(\) = 0 \{object fd \d+\}/)
    assert.equal(stderr.split('interface.query(').length - 1, 1, 'the description of the device is queried once')
    const [completed, refused] = stderr.split('\n').filter(line => line.includes('interface.chain('))
    assert.match(
      completed,
      /entries \[pd\.create\(\), cq\.create\(.*channel fd \d+.*\), rc_qp\.create\(pd entry 0, sendCq entry 1/,
    )
    assert.match(completed, /… 499 more\]\) = 0 \{done 503, results \[\{object \d+\}, /)
    assert.match(refused, /\{done 1, results \[.*\], entry 1 EINVAL \(rc_qp\.create: .*maxSendWr.*\)\}/)
  })

  it('shows calls on a driver’s descriptor by name', { skip: lacking(contexts) }, async t => {
    const args = ['trace', '--private', '--device', 'ctx0', '--', contexts, 'messages', '3']
    const { status, stdout, stderr } = await runUserdma(t, args)
    assert.equal(status, 0, stdout + stderr)
    assert.match(stderr, /driver_ops\.create\(name "ctx\.userdma\.2"\) = 0 \{object fd \d+\}/)
    assert.match(stderr, / fd \d+ driver\(ctx\.userdma\.2: ioctl\(ASSIGN, 0x[0-9a-f]+\)\) = 0 </)
    assert.match(stderr, / fd \d+ driver\(ctx\.userdma\.2: write\(\d+\)\) = \d+ </)
    const abi = (await runUserdma(t, ['trace', '--abi', ...args.slice(1)])).stderr
    assert.match(abi, /\n {4}object driver_ops\.create at 0x.*\n {6}name 0x1 \S+, 13 bytes: \w+ = "ctx\.userdma\.2"\n/)
    // class 40: driver_ops; call 4: create
    assert.match(abi, /\n {6}answer length \d+, class 40, call 4, object \d+, then fd \d+, .* flags ANSWERED\n/)
    assert.match(
      abi,
      /ioctl\(ASSIGN.*\n {4}driver request 0x.*\n {6}in at 0x.*, 24 bytes: .*\n {8}\+0 eagerCount \d+\n/,
    )
    assert.match(abi, /\n {6}out at 0x.*, 56 bytes: .*\n(?: {8}\+.*\n)+ {8}… \d+ more fields\n/)
    assert.match(abi, /write\(\d+\).*\n {4}driver\n {6}in at .*\n(?: {8}.*\n)+ {8}\+24 data, \d+ bytes: /)
  })

  it('names the error of a refused call', async t => {
    const { status, stderr } = await runUserdma(t, ['trace', '--private', '--', 'ibv_devinfo'])
    assert.equal(status, 0)
    const line = /^\[pid \d+ ibv_devinfo\] fd \d+ ioctl\(QUERY_DEVICE\) = -1 ENOSPC \(libibverbs' probe: .+\) <0\./m
    assert.match(stderr, line)
  })

  it('shows only the calls of the traced program', async t => {
    const daemon = await startDaemon(t)
    const { calls } = await tracedPingpong(t, daemon, ['-n', '10'])
    assert.equal(new Set([...calls.matchAll(/^\[pid (\d+)/gm)].map(match => match[1])).size, 1)
  })

  it('is complete when its daemon ends, however long the program runs', async t => {
    const file = join(temporaryFolder(t), 'summary.txt')
    const env = cleanEnvironment({ TMPDIR: temporaryFolder(t) })
    const script = `ibv_devinfo; ${userdma} stop; until grep -q query ${file}; do sleep .01; done; exit 9`
    const { status, stderr } = await runUserdma(
      t,
      ['trace', '--private', '--summary', '-o', file, '--', 'sh', '-c', script],
      { env },
    )
    assert.equal(status, 9, stderr)
    assert.match(stderr, /ended while sh was running/)
  })

  it('passes on the program’s status and output', async t => {
    const { status, stdout, stderr } = await runUserdma(t, [
      'trace',
      '--private',
      '--',
      'sh',
      '-c',
      'ibv_devinfo; exit 7',
    ])
    assert.equal(status, 7)
    assert.match(stdout, /hca_id:\trxe0/)
    assert.match(stderr, /device\.query\(\) = 0 \{attributes \{nodeGuid 0000:7fff:fe00:0001, /)
  })
})

describe('userdma trace --pcap on a full disk', { skip: lacking('unshare', ownProgram('loopback')) }, () => {
  it('says that packets are missing, and exits with status 1', async t => {
    if (process.geteuid?.() !== 0) return void skipTest(t, 'a small file system needs root')
    const folder = temporaryFolder(t)
    const options = `--private -o ${folder}/calls --pcap ${folder}/full/packets`
    const script = `mount -t tmpfs -o size=4k none ${folder}/full && ${userdma} trace ${options} -- ${ownProgram('loopback')}`
    mkdirSync(join(folder, 'full'))
    const { status, stderr } = await run(t, 'unshare', ['-m', 'sh', '-c', script], { env: cleanEnvironment() })
    assert.equal(stderr, `userdma: cannot write to ${folder}/full/packets: ENOSPC; the rest is missing\n`)
    assert.equal(status, 1)
  })
})

/** The output of tshark for a capture, by lines. */
const tshark = async (t: Scope, pcap: string, ...args: readonly string[]): Promise<string[]> => {
  const { status, stdout, stderr } = await run(t, 'tshark', ['-r', pcap, ...args])
  assert.equal(status, 0, stderr)
  return stdout.trimEnd().split('\n')
}

describe('a connection of rdma_cm', { skip: lacking('rping', 'tshark') }, () => {
  for (const address of casesOf(['127.0.0.1', '::1'], one => one === '::1'))
    it(`is read by tshark from REQ to DREP (${address})`, async t => {
      const daemon = await startDaemon(t, { devices: [`rxe0@${address}`] })
      const pcap = join(temporaryFolder(t), 'packets.pcapng')
      const addressOptions = ['-a', address, '-p', String(await freePort()), '-C', '2']
      // The traced program is the server, which sends the last message, the DREP.
      const options = ['trace', '--socket', daemon.socket, '-o', '/dev/null', '--pcap', pcap]
      const server = start(t, userdma, [...options, '--', 'rping', '-s', ...addressOptions])
      await Promise.race([daemon.settled(({ connections }) => connections.listeners > 0), server.ended])
      const client = await run(t, 'rping', ['-c', ...addressOptions], { env: daemon.env })
      assert.equal(client.status, 0, client.stdout + client.stderr)
      await server.ended
      const lines = await tshark(t, pcap, '-Y', 'infiniband.mad.mgmtclass == 7') // 7: communication management
      // On a busy machine a message may be retransmitted.
      assert.deepEqual(
        [...new Set(lines.map(line => /CM: (\w+)/.exec(line)?.[1]))],
        ['ConnectRequest', 'ConnectReply', 'ReadyToUse', 'DisconnectRequest', 'DisconnectReply'],
      )
      assert.deepEqual(await tshark(t, pcap, '-Y', '_ws.malformed'), [''])
    })
})

/** Opcodes of RC packets (IBA 9.2.1). */
const [SEND_FIRST, SEND_MIDDLE, SEND_LAST, ACKNOWLEDGE] = [0x00, 0x01, 0x02, 0x11]

describe('userdma trace --pcap', { skip: lacking('ibv_rc_pingpong', 'tshark', 'editcap', 'python3') }, () => {
  /** verify.py checks the ICRC of each packet without the code of userdma. */
  const verifyIcrcs = async (t: Scope, pcap: string): Promise<string> => {
    const classic = `${pcap}.pcap`
    const converted = await run(t, 'editcap', ['-F', 'pcap', pcap, classic])
    assert.equal(converted.status, 0, converted.stderr)
    const { status, stdout, stderr } = await run(t, 'python3', [fixture('wire', 'verify.py'), classic])
    assert.equal(status, 0, stdout + stderr)
    return stdout
  }

  for (const device of casesOf(['rxe0@127.0.0.1', 'rxe0@::1'], one => one !== 'rxe0@::1'))
    it(`writes packets that tshark decodes and whose ICRC is right (${device})`, async t => {
      const daemon = await startDaemon(t, { devices: [device] })
      const { pcap } = await tracedPingpong(t, daemon, ['-n', '20', '-s', '5001', '-m', '1024'])
      const lines = await tshark(t, pcap, '-T', 'fields', '-e', 'frame.protocols', '-e', 'infiniband.bth.opcode')
      // Each message of 5001 bytes has FIRST, three MIDDLE and LAST.
      const opcodes = lines.map(line => Number(line.split('\t')[1]))
      const count = (opcode: number): number => opcodes.filter(one => one === opcode).length
      assert.deepEqual([count(SEND_FIRST), count(SEND_MIDDLE), count(SEND_LAST)], [40, 120, 40], lines.join('\n'))
      assert.ok(count(ACKNOWLEDGE) > 0)
      for (const line of lines) assert.match(line, /^eth:ethertype:ipv?6?:udp:infiniband/)
      // 0x600000 is tshark's severity "warning" (PI_WARN). Over IPv6 RoCE's UDP checksum of 0 is such a warning.
      const warned = device.includes('::') ? '' : ' || _ws.expert.severity >= 0x600000'
      const output = await tshark(t, pcap, '-Y', `_ws.malformed${warned}`)
      assert.deepEqual(output, [''])
      const summary = await verifyIcrcs(t, pcap)
      assert.match(
        summary,
        new RegExp(`1 files, ${lines.length} RoCEv2 packets, ICRC right in ${lines.length}, .* errors 0`),
      )
    })

  it('writes dropped packets and their retransmissions', async t => {
    const daemon = await startDaemon(t, { fault: 'drop=0.05,seed=2' })
    const { pcap } = await tracedPingpong(t, daemon, ['-n', '20', '-s', '5001', '-m', '1024'])
    await verifyIcrcs(t, pcap)
    const [{ port, faults }] = (await daemon.stat()).devices
    const packets = readCapture(readFileSync(pcap)).map(({ bytes }) => {
      const frame = parseFrame(bytes)
      assert.notEqual(frame.kind, 'opaque')
      const packet = parsePacket(frame.kind === 'opaque' ? bytes : frame.payload)
      assert.notEqual(packet.kind, 'opaque')
      return packet.kind === 'opaque' ? '' : `${packet.name} ${packet.BTH.destQp} ${packet.BTH.psn}`
    })
    assert.ok(faults.dropped > 0)
    assert.equal(packets.length, port.receivedPackets + faults.dropped)
    const commented = await tshark(t, pcap, '-Y', 'frame.comment == "dropped"')
    assert.equal(commented.length, faults.dropped)
    assert.ok(new Set(packets).size < packets.length, 'no packet was sent twice')
  })
})
