/*
 * Networks in virtual time: runs repeat, time passes only while everything waits, and a program that waits for nothing
 * is told.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { createNetwork, type Network, open, reconnect } from '../../../../src/library/index.ts'
import { inLongRun } from '../../../long-run.ts'
import { repoRoot } from '../../../paths.ts'
import { temporaryFolder } from '../../../system/programs.ts'
import { startEcho, talk } from './echo.ts'

const session = fileURLToPath(new URL('session.js', import.meta.url))
const FAULTS = 'drop=5%,dup=2%,reorder=5%,delay=1ms,jitter=1ms'

test('a seed gives the same packets and the same recording in another process, also on a busy machine', async t => {
  const root = temporaryFolder(t)
  let runs = 0
  const run = async (seed: number, options: readonly string[] = []): Promise<string> => {
    const folder = join(root, String(runs++))
    mkdirSync(folder)
    const args = [...options, session, String(seed), FAULTS, folder]
    return (await promisify(execFile)(process.execPath, args, { cwd: folder })).stdout
  }
  const noise = [
    '--cpu-prof',
    '--max-semi-space-size=1',
    '--import',
    `data:text/javascript,import{Worker}from'node:worker_threads';new Worker('for(;;);',{eval:true}).unref()`,
  ]
  const [first, noisy, other] = await Promise.all([run(8), run(8, inLongRun(noise, [])), run(9)])
  assert.equal(noisy, first)
  // packets were marked and lost, and the sender reacted
  assert.match(first, /^\d+\.\d+ [\d.]+ [0-9a-f]{64} [1-9]\d* [1-9]\d* [1-9]\d*\n[0-9a-f]{64}\n$/)
  assert.notEqual(other, first)
})

test('in one process each run is the same', async () => {
  const run = async (): Promise<unknown> => {
    const echo = await startEcho({ seed: 3, fault: FAULTS })
    await talk(echo, 100)
    const { left, right, network, connection } = echo
    const { qpn } = connection.qp
    const counters = [left.counters(), right.counters()]
    await echo.end()
    return { qpn, counters, end: network.now() }
  }
  const first = await run()
  assert.deepEqual(await run(), first)
})

test('an hour of an idle connection passes at once, and its keep-alives are packets', async () => {
  const echo = await startEcho()
  const before = echo.left.counters().port.receivedPackets
  const start = echo.network.now()
  await echo.network.sleep(3_600_000)
  assert.equal(echo.network.now() - start, 3_600_000)
  const pings = echo.left.counters().port.receivedPackets - before
  assert.ok(pings > 1000 && pings < 10_000, String(pings))
  await echo.end()
})

test('timeouts and signals of the network are in its time', async () => {
  const echo = await startEcho()
  const { network, messages } = echo
  const begin = network.now()
  await assert.rejects(messages.receive({ timeout: 5000 }), { code: 'ETIMEDOUT' })
  assert.equal(network.now() - begin, 5000)
  await assert.rejects(messages.receive({ signal: network.timeout(5000) }), { name: 'TimeoutError' })
  assert.equal(network.now() - begin, 10_000)
  await assert.rejects(network.sleep(1e6, { signal: network.timeout(1) }), { name: 'TimeoutError' })
  network.setFaults('drop=100%')
  await assert.rejects(messages.receive(), /has not answered for 10000 ms/)
  const attempts = reconnect(`rdma://${echo.left.address}:7471`, {
    device: echo.right,
    timeout: 1000,
    signal: network.timeout(60_000),
  })
  await assert.rejects(attempts.next(), { name: 'TimeoutError' })
  assert.ok(network.now() < 100_000, String(network.now()))
  await echo.close()
})

test('a program that polls without a wait lets time pass', async () => {
  const network = createNetwork({ clock: 'virtual', fault: 'nth=1,drop=1' })
  const [left, right] = [await open({ network }), await open({ network })]
  const cq = left.cq()
  const qp = left.pd().polledRcQp({ sendCq: cq })
  const peer = right.pd().polledRcQp({ sendCq: right.cq() })
  qp.connect(peer.endpoint)
  peer.connect(qp.endpoint)
  const target = right.pd()
  qp.write(Uint8Array.of(1), target.register(new Uint8Array(8), { remoteWrite: true }).remote())
  while (!cq.poll());
  assert.ok(network.now() > 60, `the ACK timeout of 67 ms has passed: ${network.now()}`)
  assert.throws(() => {
    while (!cq.poll());
  }, /polls have found nothing/)
  await left.close()
  await right.close()
})

/** What rejects `wait`: each error has the code and the text. */
const isStuck = (wait: (network: Network) => Promise<unknown>, code: string, text: RegExp) => async () => {
  const echo = await startEcho()
  await assert.rejects(wait(echo.network), (error: Error & { code: string }) => {
    assert.equal(error.code, code)
    assert.match(error.message, text)
    return true
  })
  await echo.close()
}

test('a program in which everything waits is told what waits, with its lines', async () => {
  const echo = await startEcho()
  const line = /messages\.receive at .*virtual-time\.test\.[jt]s:\d+/
  const other = await open({ network: echo.network })
  const lonely = other.cq().wait()
  const both = await Promise.allSettled([lonely, echo.messages.receive()])
  for (const { reason } of both as PromiseRejectedResult[]) {
    assert.equal(reason.code, 'EDEADLK')
    assert.match(reason.message, line)
    assert.match(reason.message, /cq\.wait at .*virtual-time\.test/)
  }
  await other.close()
  await echo.close()
})

test(
  'a send that is never received is told, although RNR NAKs never end',
  isStuck(
    async network => {
      const [left, right] = [await open({ network }), await open({ network })]
      const [qp, peer] = [left.pd().rcQp(), right.pd().rcQp()]
      qp.connect(peer.endpoint, { minRnrTimer: 31 })
      peer.connect(qp.endpoint, { minRnrTimer: 31 })
      try {
        await qp.send(Uint8Array.of(1))
      } finally {
        await left.close()
        await right.close()
      }
    },
    'EDEADLK',
    /for 6\d\d s of virtual time nothing has ended the wait[\s\S]*qp\.send at/,
  ),
)

test('real timers and sockets are refused by name; files and guards are not', async () => {
  const echo = await startEcho()
  const timer = setTimeout(() => {}, 1e6)
  await assert.rejects(echo.network.sleep(5), { code: 'EOPNOTSUPP', message: /setTimeout or setInterval/ })
  clearTimeout(timer)
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const other = await startEcho({ external: 'wait' })
  await other.network.sleep(5)
  await assert.rejects(echo.network.sleep(5), { code: 'EOPNOTSUPP', message: /a TCP server/ })
  server.close()
  await echo.network.sleep(5)
  const guard = setTimeout(() => {}, 1e6)
  guard.unref()
  const before = echo.network.now()
  const [, text] = await Promise.all([echo.network.sleep(1), readFile(join(repoRoot, 'package.json'), 'utf8')])
  assert.match(text, /userdma/)
  assert.equal(echo.network.now(), before + 1)
  clearTimeout(guard)
  await echo.close()
  await other.end()
})

test('with external: wait, time stands still while a real timer runs', async () => {
  const echo = await startEcho({ external: 'wait' })
  const before = echo.network.now()
  const answer = echo.messages.receive({ timeout: 1000 })
  setTimeout(() => void echo.messages.send(Uint8Array.of(9)), 20)
  assert.deepEqual([...(await answer)], [9])
  assert.ok(echo.network.now() - before < 1)
  await echo.end()
})

test('a seed makes the numbers of a network in real time repeatable', async () => {
  const qpnWith = async (seed: number | undefined): Promise<number> => {
    await using device = await open({ network: createNetwork({ seed }) })
    return device.pd().rcQp().qpn
  }
  assert.equal(await qpnWith(5), await qpnWith(5))
  assert.notEqual(await qpnWith(5), await qpnWith(6))
})

for (const [options, text] of [
  [{ clock: 'fast' }, /clock "fast"/],
  [{ clock: 'virtual', link: 'dgram' }, /sockets are not in virtual time/],
  [{ clock: 'virtual', path: 'direct' }, /messages without packets take no time/],
  [{ seed: -1 }, /seed -1 is not a seed/],
  [{ seed: 1, random: () => 0 }, /random and seed 1/],
  [{ external: 'wait' }, /external "wait" is for clock 'virtual'/],
  [{ clock: 'virtual', external: 'ignore' }, /external "ignore"/],
] as const)
  test(`createNetwork(${JSON.stringify(options)}) is refused`, () => {
    assert.throws(() => createNetwork(options as object), { code: 'EINVAL', message: text })
  })

test('milliseconds may have fractions with either clock; what is no number of them is refused', async () => {
  for (const network of [createNetwork(), createNetwork({ clock: 'virtual' })]) {
    assert.equal(network.timeout(0.5).aborted, false)
    for (const wrong of ['1', null, undefined, 1n, true, Number.NaN, -1, 2 ** 31] as never[]) {
      assert.throws(() => network.timeout(wrong), { code: 'EINVAL', message: /is not a number of milliseconds/ })
      await assert.rejects(network.sleep(wrong), { code: 'EINVAL', message: /is not a number of milliseconds/ })
    }
  }
})
