/*
 * Shared receive queues and XRC, which rxe's provider lacks and the preload library adds.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { casesOf, longOnly } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import {
  assertFaultsInjected,
  assertGood,
  freePort,
  isEmpty,
  lacking,
  ownProgram,
  run,
  type Scope,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
  TWO_DEVICES,
  untilListening,
  userdma,
} from '../programs.ts'
import { type Pair, type PairOptions, runPair } from './pingpong.ts'

/** Asserts that both ends succeeded and printed this line. */
const assertBoth = ({ server, client }: Pair, line: RegExp): void => {
  for (const finished of [client, server]) {
    assertGood(finished)
    assert.match(finished.stdout, line)
  }
}

const programs = ['ibv_srq_pingpong', 'ibv_xsrq_pingpong', 'ib_send_bw']

describe('shared receive queues and XRC', { skip: lacking(...programs, ownProgram('shared_queues')) }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  const pingpongs: readonly (readonly string[])[] = [
    ['-n', '300'],
    ['-n', '640', '-q', '32', '-r', '100', '-c'],
    ['-n', '200', '-s', '10001', '-m', '256', '-q', '3', '-e', '-c'],
    ['-n', '50', '-s', '1048576', '-m', '4096', '-q', '2'],
  ]
  casesOf(pingpongs, (_, i) => i === 1 || i === 2).forEach((args, i) => {
    it(`ibv_srq_pingpong ${args.join(' ')}`, async t => {
      const devices = ['rxe0', i % 2 === 0 ? 'rxe1' : 'rxe0'] as const
      const pair = await runPair(t, daemon, ['-g', '1', ...args], { program: 'ibv_srq_pingpong', devices })
      assertBoth(pair, /^\d+ iters in /m)
      assert.doesNotMatch(pair.client.stdout + pair.server.stdout, /invalid data in page/)
    })
  })

  /** Runs ibv_xsrq_pingpong as a server with `count` clients. */
  const runXsrqPingpong = async (
    t: Scope,
    serverDaemon: TestDaemon,
    count: number,
    args: readonly string[],
    devices: readonly [string, string] = ['rxe0', 'rxe0'],
    clientDaemon = serverDaemon,
  ): Promise<void> => {
    const port = await freePort()
    const options = ['-g', '1', '-p', String(port), ...args]
    const program = 'ibv_xsrq_pingpong'
    const server = start(t, program, ['-d', devices[0], '-c', String(count), ...options], {
      env: serverDaemon.env,
    })
    assert.ok(await untilListening(port, server.ended), server.output())
    const clients = Array.from({ length: count }, () =>
      run(t, program, ['-d', devices[1], ...options, 'localhost'], { env: clientDaemon.env }),
    )
    for (const finished of [...(await Promise.all(clients)), await server.ended]) {
      assertGood(finished)
      assert.match(finished.stdout, /^success$/m)
    }
  }
  it('ibv_xsrq_pingpong, one client', { skip: longOnly }, t => runXsrqPingpong(t, daemon, 1, []))
  it('ibv_xsrq_pingpong between two devices, with events', t => runXsrqPingpong(t, daemon, 1, ['-e'], ['rxe0', 'rxe1']))
  it('ibv_xsrq_pingpong, four clients', { skip: longOnly }, t =>
    runXsrqPingpong(t, daemon, 4, ['-n', '100', '-s', '5000', '-m', '1024']),
  )
  it('ibv_xsrq_pingpong, three clients with events', t =>
    runXsrqPingpong(t, daemon, 3, ['-n', '50', '-e', '-m', '256']))

  const perftest: readonly (readonly [program: string, size: number, ...args: string[]])[] = [
    ['ib_send_bw', 65536, '--use-srq', '-q', '4', '-n', '100'],
    ['ib_send_bw', 1000, '--use-srq', '-q', '3', '-n', '200', '-b', '-m', '256'],
    ['ib_send_lat', 64, '--use-srq', '-n', '200'],
    ['ib_send_bw', 65536, '-c', 'XRC', '-n', '100', '-q', '2'],
    ['ib_send_lat', 64, '-c', 'XRC', '-n', '200'],
    ['ib_write_bw', 65536, '-c', 'XRC', '-n', '100', '-q', '2'],
    ['ib_write_lat', 64, '-c', 'XRC', '-n', '50'],
    ['ib_read_bw', 65536, '-c', 'XRC', '-n', '100'],
    ['ib_atomic_bw', 8, '-c', 'XRC', '-n', '200', '-A', 'FETCH_AND_ADD'],
  ]
  // `npm test` has the bandwidth tests: each operation once.
  casesOf(perftest, ([program], i) => i > 0 && program.endsWith('bw')).forEach(([program, size, ...args], i) => {
    it(`${program} ${args.join(' ')}, ${size} bytes`, async t => {
      const options: PairOptions = { program, devices: ['rxe0', i % 2 === 0 ? 'rxe0' : 'rxe1'] }
      const sizeOption = program.includes('atomic') ? [] : ['-s', String(size)]
      const { server, client } = await runPair(t, daemon, ['-x', '1', '-F', ...sizeOption, ...args], options)
      assertGood(client)
      assertGood(server)
      assert.match(client.stdout, new RegExp(`^ ${size} +\\d+ +[\\d.]+ `, 'm'))
    })
  })

  it('limits, resizing, LAST_WQE_REACHED, lists, domains and targets of two processes work as specified', async t => {
    assertGood(await run(t, ownProgram('shared_queues'), ['-d', 'rxe0', '-g', '1'], { env: daemon.env }))
  })

  it('leave nothing behind', async () => {
    await daemon.settled(isEmpty)
  })

  it('work over a network that loses and duplicates packets', async t => {
    const lossy = await startDaemon(t, { devices: TWO_DEVICES, fault: 'drop=0.02,dup=0.02,seed=9' })
    await runXsrqPingpong(t, lossy, 2, ['-n', '100', '-s', '8000', '-m', '1024'])
    // Not ibv_srq_pingpong: an end that has finished exits, and the other end may still wait for a lost ACK.
    const args = ['-x', '1', '-F', '--use-srq', '-q', '4', '-n', '100', '-s', '5000']
    const { server, client } = await runPair(t, lossy, args, { program: 'ib_send_bw' })
    assertGood(client)
    assertGood(server)
    await assertFaultsInjected(lossy)
    await lossy.settled(isEmpty)
  })

  it('work between two daemons over UDP', async t => {
    const [a, b] = await Promise.all(
      [68, 69].map(n => startDaemon(t, { devices: [`rxe0@${loopbackText(n)}`], link: 'udp' })),
    )
    await runXsrqPingpong(t, a, 2, ['-n', '50', '-s', '9000', '-m', '1024'], ['rxe0', 'rxe0'], b)
    for (const [program, ...args] of [
      ['ib_write_bw', '-c', 'XRC'],
      ['ib_send_bw', '--use-srq', '-q', '3'],
    ]) {
      const options = ['-x', '1', '-F', '-s', '65536', '-n', '50', ...args]
      const { server, client } = await runPair(t, a, options, { program, clientDaemon: b })
      assertGood(client)
      assertGood(server)
    }
    await a.settled(isEmpty)
    await b.settled(isEmpty)
  })

  it('work over UDP in one daemon, and the trace names their calls', async t => {
    const device = ['--link', 'udp', '--device', `rxe0@${loopbackText(67)}`]
    const args = ['trace', '--private', ...device, '--', ownProgram('shared_queues'), '-g', '1']
    const finished = await run(t, userdma, args)
    assertGood(finished)
    const output = finished.stdout + finished.stderr
    for (const name of [
      'srq.modify(object',
      'xrcd.create(file',
      'xrc_srq.create(pd',
      'srqNum',
      'xrc_tgt_qp.create(xrcd',
    ])
      assert.ok(output.includes(name), `the trace does not have ${name}`)
  })
})
