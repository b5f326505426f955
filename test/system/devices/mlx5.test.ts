/*
 * Programs on devices of the driver mlx5, through the distribution's libmlx5: with each other, and with rxe's devices
 * of the same daemon.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { adapters, type Limit, type LimitName } from '../../../src/spec/check/adapters.ts'
import { casesOf, longOnly } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { assertGoodPair, runPair } from '../pairs/pingpong.ts'
import {
  assertFaultsInjected,
  freePort,
  isEmpty,
  lacking,
  ownProgram,
  run,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  untilListening,
} from '../programs.ts'

const LIBRARY = '/etc/libibverbs.d/mlx5.driver'
const [A, B, RXE] = [loopbackText(31), loopbackText(32), loopbackText(33)] as const
const DEVICES = [`mlx5_0@${A},driver=mlx5`, `mlx5_1@${B},driver=mlx5`, `rxe0@${RXE}`]

const PAIR = ['mlx5_0', 'mlx5_1'] as const
const allocator = ownProgram('allocator')
const imports = ownProgram('imports')

const withDevices = (t: Scope) => startDaemon(t, { devices: DEVICES })

describe('libmlx5', { skip: lacking('ibv_rc_pingpong', 'ib_write_bw', 'rping', LIBRARY) }, () => {
  it('drives the queues of all services, with events and without', async t => {
    const daemon = await withDevices(t)
    const programs = ['ibv_rc_pingpong', 'ibv_uc_pingpong', 'ibv_ud_pingpong', 'ibv_srq_pingpong', 'ibv_xsrq_pingpong']
    for (const program of programs)
      assertGoodPair(await runPair(t, daemon, ['-g', '1', '-n', '200'], { program, devices: PAIR }))
    for (const program of casesOf(['ibv_rc_pingpong', 'ibv_srq_pingpong'], (_, i) => i < 1))
      assertGoodPair(await runPair(t, daemon, ['-g', '1', '-n', '200', '-e'], { program, devices: PAIR }))
    const args = ['-F', '-x', '1', '-n', '100']
    for (const program of casesOf(['ib_write_bw', 'ib_atomic_bw', 'ib_read_bw', 'ib_send_bw'], (_, i) => i < 2)) {
      const pair = await runPair(t, daemon, args, { program, devices: PAIR })
      assert.equal(pair.client.status, 0, pair.client.stdout + pair.client.stderr)
    }
    await daemon.settled(isEmpty)
  })

  for (const kind of ['pages', 'huge', 'close'])
    it(`has queues wherever the program's allocator puts them (${kind})`, { skip: lacking(allocator) }, async t => {
      const daemon = await withDevices(t)
      const { status, stdout, stderr } = await run(t, allocator, ['mlx5_0', kind], { env: daemon.env })
      assert.equal(status, 0, stderr)
      if (stdout === 'absent\n') return t.skip('the system has no huge pages')
      assert.deepEqual(stdout.trimEnd().split('\n'), [
        '8 allocations',
        'data beside queues that were used: unchanged',
        'beside queues that are gone: unchanged, 0 allocations',
      ])
      await daemon.settled(isEmpty)
    })

  it('imports what another program has created', { skip: lacking(imports) }, async t => {
    const daemon = await withDevices(t)
    const { status, stdout, stderr } = await run(t, imports, ['mlx5_0'], { env: daemon.env })
    assert.equal(status, 0, stderr)
    assert.deepEqual(stdout.trimEnd().split('\n'), [
      'imported device memory has 5, the region 4096 bytes',
      'WRITE: success',
      "the exporter's memory has 7",
    ])
    await daemon.settled(isEmpty)
  })

  it('shows the limits that `check --like mlx5` has', async t => {
    const daemon = await withDevices(t)
    const { stdout } = await run(t, 'ibv_devinfo', ['-d', 'mlx5_0', '-v'], { env: daemon.env })
    assert.match(stdout, /vendor_part_id:\s+4119\n/)
    const names: Partial<Record<LimitName, string>> = {
      max_send_wr: 'max_qp_wr',
      max_recv_wr: 'max_qp_wr',
      max_send_sge: 'max_sge',
      max_recv_sge: 'max_sge',
      max_rd_atomic: 'max_qp_init_rd_atom',
      max_dest_rd_atomic: 'max_qp_rd_atom',
    }
    for (const [name, [limit]] of Object.entries(adapters.mlx5.limits) as [LimitName, Limit][]) {
      // libmlx5's own; and our device's rows, which are fewer
      if (name === 'max_inline_data' || name === 'max_qp') continue
      const [, shown] = new RegExp(`\\b${names[name] ?? name}:\\s+(\\w+)`).exec(stdout) ?? []
      assert.equal(Number(shown), limit, name)
    }
  })

  it('reaches devices of rxe, and they reach it', async t => {
    const daemon = await withDevices(t)
    for (const devices of [
      ['mlx5_0', 'rxe0'],
      ['rxe0', 'mlx5_1'],
    ] as const)
      for (const program of ['ibv_rc_pingpong', 'ibv_xsrq_pingpong']) {
        // RoCE v2 of the address
        const argsOf = (device: string) => ['-g', device === 'rxe0' ? '1' : '3', '-n', '100']
        const [args, clientArgs] = [argsOf(devices[0]), argsOf(devices[1])]
        assertGoodPair(await runPair(t, daemon, args, { program, devices, clientArgs }))
      }
  })

  for (const [where, fault] of [
    ['in one daemon', undefined],
    // by count: no request is lost as often as it is sent
    ['over UDP with loss', 'every=31,drop=1;every=43,dup=1;every=19,reorder=1'],
  ] as const)
    it(`has the dynamically connected transport, ${where}`, { skip: lacking(ownProgram('dynamic')) }, async t => {
      const settings = { link: 'udp', ...(fault !== undefined && { fault }) }
      const isOne = where === 'in one daemon'
      const one = isOne ? await withDevices(t) : await startDaemon(t, { devices: [DEVICES[0]!], ...settings })
      const other = isOne ? one : await startDaemon(t, { devices: [DEVICES[1]!], ...settings })
      const pair = await runPair(t, one, ['-n', '20'], {
        program: ownProgram('dynamic'),
        devices: PAIR,
        clientDaemon: other,
      })
      for (const { stdout, stderr, status } of [pair.server, pair.client])
        assert.deepEqual([stdout, stderr, status], ['good\n', '', 0])
      for (const daemon of [one, other]) await daemon.settled(isEmpty)
      if (fault !== undefined) await assertFaultsInjected(one, other)
    })

  for (const [where, settings] of [
    ['in one daemon', {}],
    ['over UDP with loss', { link: 'udp', fault: 'drop=0.03,dup=0.02,reorder=0.05,seed=5' }],
  ] as const)
    it(`has queues and events of firmware commands, ${where}`, {
      skip: lacking(ownProgram('firmware_queues')),
    }, async t => {
      const daemon = await startDaemon(t, { devices: [DEVICES[0]!], ...settings })
      const { stdout, stderr, status } = await run(t, ownProgram('firmware_queues'), [PAIR[0]!], { env: daemon.env })
      assert.deepEqual([stdout, stderr, status], ['good\n', '', 0])
      await daemon.settled(isEmpty)
    })

  it('runs UCX over it', { skip: longOnly || lacking('ucx_perftest') }, async t => {
    const daemon = await withDevices(t)
    const env = { UCX_TLS: 'dc_mlx5,self', UCX_NET_DEVICES: 'mlx5_0:1' }
    for (const test of ['tag_bw', 'ucp_add']) {
      const port = await freePort()
      const args = ['-t', test, '-n', '100', '-w', '10', '-p', String(port)]
      const server = start(t, 'ucx_perftest', args, { env: { ...daemon.env, ...env } })
      await untilListening(port, server.ended)
      const client = await run(t, 'ucx_perftest', [...args, 'localhost'], { env: { ...daemon.env, ...env } })
      for (const { status, stdout, stderr } of [client, await server.ended]) assert.equal(status, 0, stdout + stderr)
      assert.match(client.stdout, /Final: +100 /)
    }
    await daemon.settled(isEmpty)
  })

  it("does not leave UCX's threads that poll to the scheduler's tick", {
    skip: longOnly || lacking('ucx_perftest'),
  }, async t => {
    const daemon = await withDevices(t)
    /** Microseconds of a message, the median of one run. */
    const latency = async (transport: string): Promise<number> => {
      const env = { ...daemon.env, UCX_TLS: `${transport},ud:aux,self`, UCX_NET_DEVICES: 'mlx5_0:1' }
      const port = await freePort()
      const args = ['-t', 'tag_lat', '-n', '1000', '-w', '10', '-p', String(port)]
      const server = start(t, 'ucx_perftest', args, { env })
      await untilListening(port, server.ended)
      const { stdout, stderr } = await run(t, 'ucx_perftest', [...args, 'localhost'], { env })
      await server.ended
      const [, median] = /^Final: +\d+ +(\S+)/m.exec(stdout) ?? []
      assert.ok(median !== undefined, stdout + stderr)
      return Number(median)
    }
    const medianOf3 = async (transport: string): Promise<number> => {
      const values = [await latency(transport), await latency(transport), await latency(transport)]
      return values.sort((a, b) => a - b)[1]!
    }
    // Polls of rc_verbs yield, those of rc_mlx5 do not.
    const [yielding, spinning] = [await medianOf3('rc_verbs'), await medianOf3('rc_mlx5')]
    assert.ok(spinning <= 10 * yielding, `${spinning} µs, with yields ${yielding} µs`)
  })

  it("runs perftest's raw Ethernet", {
    skip: longOnly || lacking('raw_ethernet_lat', 'raw_ethernet_fs_rate'),
  }, async t => {
    const daemon = await withDevices(t)
    const macOf = (address: string): string => {
      const [, ...bytes] = address.split('.').map(byte => Number(byte).toString(16).padStart(2, '0'))
      return ['02', '00', '7f', ...bytes].join(':')
    }
    const addresses = (own: string, other: string): string[] => ['-B', macOf(own), '-E', macOf(other), '-n', '200']
    const options = { env: daemon.env }
    const server = start(t, 'raw_ethernet_lat', ['-d', 'mlx5_1', '--server', ...addresses(B, A)], options)
    // frames that arrive before the server's rule are lost
    await daemon.settled(({ devices }) => devices.some(({ objects }) => objects.flow === 1))
    const client = await run(t, 'raw_ethernet_lat', ['-d', 'mlx5_0', '--client', ...addresses(A, B)], options)
    for (const { stdout, stderr } of [client, await server.ended]) assert.match(stdout, /^ 64 +200 /m, stderr)
    const rules = await run(t, 'raw_ethernet_fs_rate', ['-d', 'mlx5_1', '--server', ...addresses(B, A)], options)
    assert.equal(rules.status, 0, rules.stderr)
    await daemon.settled(isEmpty)
  })

  it('refuses raw packets where the link carries no frames', { skip: lacking(ownProgram('raw_packets')) }, async t => {
    const daemon = await startDaemon(t, { devices: DEVICES.slice(0, 1), options: ['--link', 'udp'] })
    const traced = ['trace', '--socket', daemon.socket, '--', ownProgram('raw_packets'), 'mlx5_0']
    const { stdout, stderr, status } = await runUserdma(t, traced)
    assert.equal(status, 1)
    assert.match(
      stdout + stderr,
      /raw_packet_qp\.create: the link carries packets of RoCE only, no other frames: use --link memory/,
    )
  })

  it('resizes completion queues in traffic', { skip: lacking(ownProgram('resized')) }, async t => {
    const daemon = await withDevices(t)
    const { stdout, stderr, status } = await run(t, ownProgram('resized'), ['mlx5_0', '200'], { env: daemon.env })
    assert.deepEqual([stdout, stderr, status], ['good\n', '', 0])
    await daemon.settled(isEmpty)
  })

  it('sends and receives raw packets by flow rules', { skip: lacking(ownProgram('raw_packets')) }, async t => {
    const daemon = await withDevices(t)
    const { stdout, stderr, status } = await run(t, ownProgram('raw_packets'), ['mlx5_0'], { env: daemon.env })
    assert.deepEqual([stdout, stderr, status], ['good\n', '', 0])
    await daemon.settled(isEmpty)
  })

  it('check finds no fault in a program of rdma_cm but its own', { skip: lacking('rdma') }, async t => {
    const script = `rping -s -a ${A} -C 5 & until rdma resource show cm_id | grep -q LISTEN; do :; done; rping -c -a ${A} -C 5 && wait $!`
    const { status, stdout, stderr } = await runUserdma(t, ['check', '--device', DEVICES[0]!, '--', 'sh', '-c', script])
    assert.equal(status, 0, stdout + stderr)
    // rping's own
    assert.doesNotMatch(stderr, /userdma check: (error|warning (?!cm-id-destroyed-early))/)
  })
})
