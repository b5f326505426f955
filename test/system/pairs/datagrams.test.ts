/*
 * Unreliable connections, datagrams and multicast, on the memory link and over UDP.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import {
  assertGood,
  isEmpty,
  lacking,
  ownProgram,
  run,
  startDaemon,
  suiteScope,
  type TestDaemon,
  TWO_DEVICES,
  userdma,
} from '../programs.ts'
import { type Pair, runPair } from './pingpong.ts'

/** Asserts that both ends succeeded, printed this line and received no wrong data. */
const assertBoth = ({ server, client }: Pair, line: RegExp): void => {
  for (const finished of [client, server]) {
    assertGood(finished)
    assert.match(finished.stdout, line)
    assert.doesNotMatch(finished.stdout, /invalid data in page/)
  }
}

const pingpongs: readonly (readonly [program: string, ...args: string[]])[] = [
  ['ibv_uc_pingpong'],
  ['ibv_uc_pingpong', '-s', '30001', '-n', '100', '-m', '256', '-e', '-c'],
  ['ibv_uc_pingpong', '-s', '1', '-n', '200', '-m', '4096'],
  ['ibv_ud_pingpong'],
  ['ibv_ud_pingpong', '-s', '1', '-n', '200', '-e', '-c'],
  ['ibv_ud_pingpong', '-s', '4096', '-n', '100', '-c'],
]
/** `bytes`: the message size that the report has. */
const perftests: readonly (readonly [program: string, bytes: number, ...args: string[]])[] = [
  ['ib_write_bw', 65536, '-c', 'UC', '-s', '65536', '-n', '300'],
  ['ib_write_lat', 64, '-c', 'UC', '-s', '64', '-n', '100'],
  ['ib_send_bw', 4096, '-c', 'UC', '-s', '4096', '-n', '300'],
  ['ib_send_lat', 2000, '-c', 'UC', '-s', '2000', '-n', '100', '-e'],
  ['ib_send_bw', 1024, '-c', 'UD', '-s', '1024', '-n', '300'],
  ['ib_send_lat', 64, '-c', 'UD', '-s', '64', '-n', '200'],
]
/** perftest's options for the group ::ffff:239.91.0.7. */
const GROUP_OPTIONS = ['-g', '-M', '0:0:0:0:0:0:0:0:0:0:255:255:239:91:0:7']

const datagrams = ownProgram('datagrams')

describe('unreliable services', {
  skip: lacking('ibv_uc_pingpong', 'ibv_ud_pingpong', 'ib_send_bw', datagrams),
}, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  casesOf(pingpongs, (_, i) => i % 3 === 1).forEach(([program, ...args], i) => {
    it(`${program} ${args.join(' ')}`, async t => {
      const devices = ['rxe0', i % 2 === 0 ? 'rxe1' : 'rxe0'] as const
      assertBoth(await runPair(t, daemon, ['-g', '1', ...args], { program, devices }), /^\d+ iters in /m)
    })
  })
  casesOf(perftests, (_, i) => i % 2 === 0).forEach(([program, bytes, ...args], i) => {
    it(`${program} ${args.join(' ')}`, async t => {
      const devices = ['rxe0', i % 2 === 0 ? 'rxe1' : 'rxe0'] as const
      const { server, client } = await runPair(t, daemon, ['-x', '1', '-F', ...args], { program, devices })
      assertGood(client)
      assertGood(server)
      assert.match(client.stdout, new RegExp(`^ ${bytes} +\\d+ +[\\d.]+ `, 'm'))
    })
  })
  it('ib_send_bw sends to a multicast group', async t => {
    const args = ['-x', '1', '-F', '-c', 'UD', '-n', '100', ...GROUP_OPTIONS]
    const { server, client } = await runPair(t, daemon, args, { program: 'ib_send_bw', devices: ['rxe0', 'rxe1'] })
    assertGood(client)
    assertGood(server)
  })

  it('a C program gets GRHs, replies, multicast, drops and errors as specified', async t => {
    assertGood(await run(t, datagrams, ['-d', 'rxe0', '-x', 'rxe1', '-g', '1'], { env: daemon.env }))
  })
  it('the C program works over UDP, and its trace names the calls', async t => {
    const devices = [81, 82].flatMap((n, i) => ['--device', `rxe${i}@${loopbackText(n)}`])
    const args = [
      'trace',
      '--private',
      '--link',
      'udp',
      ...devices,
      '--',
      datagrams,
      '-d',
      'rxe0',
      '-x',
      'rxe1',
      '-g',
      '1',
    ]
    const finished = await run(t, userdma, args)
    assertGood(finished)
    for (const line of [
      /ud_qp\.create\(pd \d+, .*\) = 0 \{.*qpNum 0x[0-9a-f]+/,
      /ud_qp\.modify\(object \d+, state INIT, pkeyIndex 0, port 1, qkey 0x1234567\) = 0/,
      /ah\.create\(pd \d+, address \{dgid ::ffff:127\..*isGlobal 1, port 1\}.*\) = 0 \{object \d+, number [1-9]/,
      /ud_qp\.attachMcast\(object \d+, gid ::ffff:239\.91\.2\.3, mlid 0\) = 0/,
      /ud_qp\.attachMcast\(.*\) = -1 EINVAL \(.*is not a multicast GID/,
      /ud_qp\.destroy\(object \d+\) = -1 EBUSY \(.*attached to 1 multicast groups/,
      /uc_qp\.modify\(object \d+, state RTR, address \{.*\}, pathMtu MTU_1024, rqPsn 0x5, destQpn 0x/,
    ])
      assert.match(finished.stderr + finished.stdout, line)
  })
  it('leaves nothing behind', async () => {
    await daemon.settled(isEmpty)
  })
})
