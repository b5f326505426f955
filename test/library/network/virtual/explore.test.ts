/*
 * `network.explore`: many seeds of faults, the first that fails with its faults and its ladder.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import {
  type AwaitableRcQueuePair,
  createNetwork,
  ExploreError,
  listen,
  type Messages,
  type Network,
  open,
  type Server,
  starTopology,
} from '../../../../src/library/index.ts'
import { casesOf } from '../../../long-run.ts'
import { closeAll, nextCompletion, openTwoInProcess, pair } from '../../verbs/endpoints.ts'
import { startEcho, talk } from './echo.ts'

const ignore = (): void => {}

const network = createNetwork({ clock: 'virtual' })

/** The error of an exploration that fails. */
const failureOf = async (exploration: Promise<unknown>): Promise<ExploreError> => {
  const error = await exploration.then(
    () => undefined,
    reason => reason,
  )
  assert.ok(error instanceof ExploreError, String(error))
  return error
}

test('a correct protocol passes every seed', async () => {
  const run = () =>
    network.explore(
      async network => {
        const echo = await startEcho(network)
        await talk(echo, 10)
        await echo.end()
      },
      { seeds: 8 },
    )
  const explored = await run()
  assert.equal(explored.seeds, 8)
  assert.ok(explored.packets > 8 * 30, JSON.stringify(explored))
  assert.deepEqual(await run(), explored)
})

test('a protocol without retries fails with its seed, the one fault that matters, and the ladder', async () => {
  const impatient = async (network: Parameters<typeof startEcho>[0]): Promise<void> => {
    const echo = await startEcho(network)
    try {
      await talk(echo, 10, 50)
    } catch (error) {
      await echo.close()
      throw error
    }
    await echo.end()
  }
  const explore = () => failureOf(network.explore(impatient, { seeds: 100 }))
  const error = await explore()
  assert.match(
    error.message,
    /^seed \d+ \(number \d+ of 100\) fails: messages\.receive: it is not complete after 50 ms/,
  )
  assert.equal((error.cause as { code: string }).code, 'ETIMEDOUT')
  for (const fault of error.faults)
    assert.match(fault, /^device=rxe[01],nth=\d+,(count=\d,)?((drop|dup|reorder)=1|delay=[\d.]+),seed=\d+$/)
  assert.ok(error.ladder.some(line => /ms {2}rxe[01] → rxe[01] {2}SEND_ONLY .* ✗ (dropped|delayed)/.test(line)))
  assert.equal((await explore()).message, error.message)
  // The line of the message makes the same failure without `explore`.
  const { seed, faults } = error
  const again = createNetwork({ clock: 'virtual', seed, fault: faults.join(';') })
  await assert.rejects(impatient(again), { code: 'ETIMEDOUT' })
  // No fault can be left out.
  for (const fault of faults) {
    const fewer = faults.filter(other => other !== fault).join(';')
    await impatient(createNetwork({ clock: 'virtual', seed, fault: fewer }))
  }
})

test('death of a peer is a kind of fault, which ends waits', async () => {
  const error = await failureOf(
    network.explore(
      async network => {
        const echo = await startEcho(network)
        await talk(echo, 10)
        await echo.end()
      },
      { seeds: 20, kinds: ['death'] },
    ),
  )
  assert.equal(error.faults.length, 1)
  assert.match(error.faults[0]!, /dir=both,nth=\d+,count=1000000000,drop=1/)
})

for (const [name, body, text] of [
  [
    'throws in the middle, where nobody waits',
    async sleep => {
      void sleep(5).then(() => {
        throw new Error('in the middle')
      })
      await sleep(10)
    },
    /^seed 1 fails without faults: in the middle/,
  ],
  ['waits for something else', () => new Promise(() => {}), /the test waits for something else/],
  [
    'never ends',
    async sleep => {
      for (;;) await sleep(1000)
    },
    /the test has not ended after 10000 ms of virtual time[\s\S]*network\.sleep at .*explore\.test/,
  ],
  [
    'uses a real timer',
    sleep => Promise.race([sleep(10).catch(() => {}), new Promise(resolve => setTimeout(resolve, 5))]),
    /the program has setTimeout or setInterval/,
  ],
] as const satisfies readonly [string, (sleep: (milliseconds: number) => Promise<void>) => Promise<unknown>, RegExp][])
  test(`a test that ${name} fails`, async () => {
    const limit = 10_000
    const error = await failureOf(network.explore(({ sleep }) => body(sleep), { seeds: 1, limit }))
    assert.match(error.message, text)
  })

/** What a test does again and again; its kind: what it waits for. */
const endless = [
  ['waits for no time', async given => given.sleep(0)],
  ['receives from a closed device', async (_, messages) => void (await messages.receive().catch(() => {}))],
  ['sleeps with an aborted signal', given => given.sleep(1, { signal: AbortSignal.abort() }).catch(() => {})],
  ['sends by a closed queue pair', async (_, __, qp) => void (await qp.send(Uint8Array.of(1)).catch(() => {}))],
  ['opens a device with a mistake', given => open({ network: given, name: 7 as never }).then(ignore, ignore)],
  [
    'iterates over a closed server',
    async (_, __, ___, server) => {
      for await (const request of server) request.reject()
    },
  ],
  ['waits at a closed server', (_, __, ___, server) => server.wait()],
  [
    'iterates over messages that have ended',
    async (_, messages) => {
      try {
        for await (const _ of messages);
      } catch {}
    },
  ],
  ['posts no receive', async (_, __, qp) => void (await qp.receive().catch(() => {}))],
] as const satisfies readonly [
  string,
  (given: Network, closed: Messages, qp: AwaitableRcQueuePair, server: Server) => Promise<void>,
][]

/** Each takes seconds. These wait for the network, and at what was closed. */
const ordinary = ['for no time', 'at a closed server']
for (const [name, again] of casesOf(endless, ([name]) => ordinary.some(end => name.endsWith(end))))
  test(`a test that ${name}, again and again, fails`, async () => {
    const program = async (given: Network): Promise<void> => {
      const echo = await startEcho(given)
      await echo.close()
      const device = await open({ network: given })
      const qp = device.pd().rcQp()
      qp.close()
      const server = await listen('rdma://0.0.0.0:7', { device })
      await server.close()
      for (;;) await again(given, echo.messages, qp, server)
    }
    const error = await failureOf(network.explore(program, { seeds: 1 }))
    assert.match(
      error.message,
      /50000 waits have failed, or were for no time, within [\s\S]*a pause: await network\.sleep\(1\)/,
    )
  })

test('a test that leaves a real timer fails', async () => {
  let timer: NodeJS.Timeout | undefined
  const leaving = (): void => {
    timer = setTimeout(() => {}, 1000)
  }
  try {
    const error = await failureOf(network.explore(leaving, { seeds: 1 }))
    assert.match(error.message, /the test has left setTimeout or setInterval/)
  } finally {
    clearTimeout(timer)
  }
})

test('a test that leaves a worker fails, one that ends its worker does not', async () => {
  const workers: Worker[] = []
  const begin = (): Worker => {
    const worker = new Worker('setInterval(() => {}, 1000)', { eval: true })
    workers.push(worker)
    return worker
  }
  try {
    const error = await failureOf(network.explore(() => void begin(), { seeds: 1 }))
    assert.match(error.message, /the test has left a worker, which does not repeat/)
    await network.explore(() => void begin().terminate(), { seeds: 1 })
  } finally {
    for (const worker of workers) await worker.terminate()
  }
})

test('a topology that contains itself is refused with a sentence', () => {
  const links: { hosts: number; links: unknown } = { hosts: 2, links: undefined }
  links.links = [{ between: ['h1', links] }]
  assert.throws(() => createNetwork({ clock: 'virtual', links: links as never }), {
    code: 'EINVAL',
    message: /links\.links\[0\]\.between/,
  })
})

test('of two explorations at the same time the second is refused', async () => {
  const explore = () => network.explore(({ sleep }) => sleep(1), { seeds: 1 })
  const first = explore()
  await assert.rejects(explore(), { code: 'EBUSY', message: /await it first/ })
  assert.equal((await first).seeds, 1)
  await explore()
})

test('devices that a test leaves open are closed, and findings of a check fail it', async () => {
  const checked = createNetwork({ clock: 'virtual', check: { onFinding() {} } })
  const leaving = async (given: typeof network): Promise<void> => {
    const device = await open({ network: given })
    void device
      .pd()
      .rcQp()
      .receive(device.pd().register(new Uint8Array(8)).slice())
  }
  await network.explore(leaving, { seeds: 2 })
  await checked.explore(leaving, { seeds: 2 })
  const error = await failureOf(
    checked.explore(
      async given => {
        const [left, right] = [await open({ network: given }), await open({ network: given })]
        const [qp, peer] = [left.pd().rcQp(), right.pd().rcQp()]
        qp.connect(peer.endpoint, { retryCount: 1 })
        peer.connect(qp.endpoint)
        await qp.write(Uint8Array.of(1), { address: 64n, rkey: 1, length: 8 }).catch(() => {})
      },
      { seeds: 1 },
    ),
  )
  assert.match(error.message, /unknown-rkey|rkey/)
})

test('frames of messages that loss makes late, or that are lost at an orderly end, are no findings', async () => {
  for (const seed of [4, 6, 10, 13]) {
    const found: string[] = []
    const lossy = createNetwork({
      clock: 'virtual',
      seed,
      links: starTopology(2, { delay: '1ms', loss: '5%' }),
      check: { onFinding: ({ id }) => void found.push(id) },
    })
    const echo = await startEcho(lossy)
    await talk(echo, 1)
    await echo.end()
    assert.deepEqual(found, [], `seed ${seed}`)
  }
})

for (const [options, text] of [
  [{ seeds: 0 }, /seeds 0/],
  [{ kinds: [] }, /kinds \[\] is not a list of loss, delay, reorder, duplicate, death/],
  [{ kinds: ['fire'] }, /kinds/],
  [{ faults: 33 }, /faults 33/],
  [{ seed: 1 }, /no "seed"|seed/],
] as const)
  test(`explore with ${JSON.stringify(options)} is refused`, () =>
    assert.rejects(
      network.explore(() => {}, options as object),
      { code: 'EINVAL', message: text },
    ))

test('a network in real time explores nothing', () =>
  assert.rejects(
    createNetwork().explore(() => {}),
    { code: 'EINVAL', message: /clock: 'virtual'/ },
  ))

test('the line of the message that makes the failure again has all options of the network', async () => {
  const links = starTopology(2, { loss: 0.2 })
  const network = createNetwork({ clock: 'virtual', links, dcqcn: '10gbit', fault: 'dup=10%' })
  const message = async (network: Network): Promise<void> => {
    const echo = await startEcho(network)
    try {
      await talk(echo, 10, 50)
    } finally {
      await echo.close()
    }
  }
  const error = await failureOf(network.explore(message, { seeds: 10 }))
  const again = error.message.split('\n').find(line => line.startsWith('again: '))!
  assert.match(again, /createNetwork\(\{ clock: 'virtual', links, dcqcn: "10gbit", seed: 1, fault: 'dup=10%/)
  const make = new Function('createNetwork', 'links', `return ${again.slice('again: '.length)}`)
  await assert.rejects(message(make(createNetwork, links)), { message: (error.cause as Error).message })
})

test('a program that relies on the last byte fails with the decision of torment that matters', async () => {
  const length = 4096
  const lastByte = async (network: Network): Promise<void> => {
    const { a: from, b: to } = await pair(openTwoInProcess(network))
    for (let round = 1; round <= 4; round++) {
      from.buffer.fill(round)
      const done = nextCompletion(from.cq)
      from.qp.write(from.mr.slice(), to.mr.remote())
      while (to.buffer[length - 1] !== round) await network.sleep(0.001)
      assert.equal(to.buffer[0], round, 'the first byte is there too')
      await done
    }
    await closeAll(from, to)
  }
  const error = await failureOf(network.explore(lastByte, { seeds: 100, kinds: ['torment'] }))
  assert.match(error.message, /fails: the first byte is there too/)
  assert.deepEqual(error.faults, [])
  assert.equal(error.torment.length, 1, error.message)
  assert.match(error.torment[0]!, /^bytes\/rxe1\/program\/rc_qp1\/byte\d+$/)
  // The line of the message makes the same failure without `explore`, and without the decision there is none.
  const { seed, torment } = error
  assert.ok(error.message.includes(`torment: { seed: ${seed}, only: ['${torment[0]}'] }`), error.message)
  const again = (only: readonly string[]) =>
    lastByte(createNetwork({ clock: 'virtual', seed, torment: { seed, only } }))
  await assert.rejects(again(torment), assert.AssertionError)
  await again([])
})

test('a program that relies on the order of WRITEs to a region with relaxed ordering fails', async () => {
  const twoWrites = async (network: Network): Promise<void> => {
    const { a: from, b: to } = await pair(openTwoInProcess(network))
    const bytes = new Uint8Array(8)
    const target = to.pd.register(bytes, { remoteWrite: true, relaxedOrdering: true })
    for (const value of [1, 2]) {
      from.buffer[value] = value
      from.qp.write(from.mr.slice(value, 1), target.remote(0, 1))
    }
    for (let completed = 0; completed < 2; completed++) await nextCompletion(from.cq)
    await target.close()
    await closeAll(from, to)
    assert.equal(bytes[0], 2)
  }
  const error = await failureOf(network.explore(twoWrites, { seeds: 100, kinds: ['torment'] }))
  assert.deepEqual(error.torment, ['relaxed/rxe1/program/rc_qp1/byte0'], error.message)
})

test('a program that gives the lkey of a region as its rkey fails with the decision about that region', async () => {
  const asRkey =
    (key: 'lkey' | 'rkey') =>
    async (network: Network): Promise<void> => {
      const { a: from, b: to } = await pair(openTwoInProcess(network))
      const done = nextCompletion(from.cq)
      from.qp.write(from.mr.slice(), { ...to.mr.remote().toJSON(), address: to.mr.address, rkey: to.mr[key] })
      const { statusName } = await done
      await closeAll(from, to)
      assert.equal(statusName, 'SUCCESS', `the ${key} is accepted`)
    }
  const error = await failureOf(network.explore(asRkey('lkey'), { seeds: 100, kinds: ['torment'] }))
  assert.deepEqual(error.torment, ['keys/rxe1/program/mr1/rkey'])
  const { seed, torment: only } = error
  const again = (key: 'lkey' | 'rkey') =>
    asRkey(key)(createNetwork({ clock: 'virtual', seed, torment: { seed, only } }))
  await assert.rejects(again('lkey'), assert.AssertionError)
  await again('rkey')
})

test('a program that uses lent memory again after a time limit fails with the late WRITE', async () => {
  const withLimit = async (limit: number): Promise<void> => {
    const network = createNetwork({
      clock: 'virtual',
      check: { failOn: 'never', onFinding: ignore },
      torment: { seed: 1, only: ['late/rxe1/program/rc_qp1/request1.psn0'] },
    })
    const { a: from, b: to } = await pair(openTwoInProcess(network))
    from.buffer.fill(1)
    const lend = to.mr.lend({ write: true, label: 'request 1' })
    const done = nextCompletion(from.cq)
    from.qp.write(from.mr.slice(), to.mr.remote())
    await Promise.race([done, network.sleep(limit)])
    lend.takeBack()
    to.buffer.fill(2)
    await done
    await closeAll(from, to)
    assert.ok(
      to.buffer.every(byte => byte === 2),
      'nobody writes later',
    )
  }
  await assert.rejects(withLimit(10), /nobody writes later/)
  await withLimit(10_000)
})
