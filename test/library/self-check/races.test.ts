/*
 * Races of programs in TypeScript (`open({ check: { races: true } })`), and similar programs without a race.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  type CheckOptions,
  type CountedFinding,
  createNetwork,
  type Device,
  FindingsError,
  open,
} from '../../../src/library/index.ts'
import { raceIds } from '../../../src/tools/check/races/races.ts'
import { closeAll, completionText, openTwoInProcess, pair } from '../verbs/endpoints.ts'
import { lineOf, markedLines } from './marks.ts'

const access = { remoteRead: true, remoteWrite: true, remoteAtomic: true }

const racesOf = (...devices: readonly Device[]): CountedFinding[] =>
  devices.flatMap(({ findings }) => findings).filter(({ id }) => raceIds.some(one => one === id))

/** Lines of this file that end with the mark of a case. */
const marked = (name: string): string[] => markedLines('races.test.ts', `// RACE ${name}`)

/** Two connections between two devices: a to b, near to far. `near` is on a's device. Each end has its own CQ. */
const openLinks = async (check: CheckOptions = {}) => {
  const checkOptions: CheckOptions = { races: true, failOn: 'never', onFinding: () => {}, ...check }
  const first = await pair(openTwoInProcess(createNetwork({ check: checkOptions })))
  const second = [first.a, first.b].map(({ device, pd }) => {
    const cq = device.cq({ entries: 64 })
    return { cq, qp: pd.rcQp({ sendCq: cq }) }
  })
  const [near, far] = second as [(typeof second)[0], (typeof second)[0]]
  near.qp.connect(far.qp.endpoint)
  far.qp.connect(near.qp.endpoint)
  return { ...first, near, far }
}
type Links = Awaited<ReturnType<typeof openLinks>>

type Case = readonly [finding: string | undefined, run: (links: Links) => Promise<void> | void]

const cases: Readonly<Record<string, Case>> = {
  'two writes': [
    'race',
    ({ a, b, near }) => {
      a.qp.write(a.mr.slice(0, 64), b.mr.remote(0, 64)) // RACE two writes
      near.qp.write(a.mr.slice(64, 64), b.mr.remote(0, 64)) // RACE two writes
    },
  ],
  'two writes, the first one polled': [
    undefined,
    async ({ a, b, near }) => {
      a.qp.write(a.mr.slice(0, 64), b.mr.remote(0, 64))
      assert.equal(await completionText(a.cq), '0 RDMA_WRITE')
      near.qp.write(a.mr.slice(64, 64), b.mr.remote(0, 64))
    },
  ],
  'a message in between': [
    undefined,
    async ({ a, b, far }) => {
      b.qp.receive(b.mr.slice(512, 64))
      a.qp.write(a.mr.slice(0, 64), b.mr.remote(0, 64))
      a.qp.send(a.mr.slice(64, 8))
      assert.equal(await completionText(b.cq), '0 RECV')
      far.qp.read(b.mr.slice(0, 64), a.mr.remote(256, 64))
    },
  ],
  'a read, then a write': [
    'read-then-write-unfenced',
    ({ a, b }) => {
      a.qp.read(a.mr.slice(0, 64), b.mr.remote(0, 64)) // RACE a read, then a write
      a.qp.write(a.mr.slice(64, 64), b.mr.remote(0, 64)) // RACE a read, then a write
    },
  ],
  'an atomic and a write': [
    'atomic-mixed-with-write',
    ({ a, b, near }) => {
      a.qp.fetchAdd(a.mr.slice(0, 8), b.mr.remote(0, 8), 1n) // RACE an atomic and a write
      near.qp.write(a.mr.slice(64, 8), b.mr.remote(0, 8)) // RACE an atomic and a write
    },
  ],
}

describe('races of a checked device', () => {
  for (const [name, [finding, run]] of Object.entries(cases))
    it(`${name}: ${finding ?? 'no finding'}`, async () => {
      const opened = await openLinks()
      const { a, b } = opened
      await run(opened)
      const found = racesOf(a.device, b.device)
      assert.deepEqual(
        found.map(({ id }) => id),
        finding === undefined ? [] : [finding],
        found.map(({ text, details }) => [text, ...details].join('\n')).join('\n'),
      )
      const lines = found.flatMap(({ moments }) => moments.map(({ stack: [frame] }) => lineOf(frame)))
      assert.deepEqual(lines.sort(), marked(name))
      await closeAll(a, b)
    })

  it('are not found without the option', async () => {
    const opened = await openLinks({ races: false })
    const [, run] = cases['two writes']!
    await run(opened)
    assert.deepEqual(racesOf(opened.a.device, opened.b.device), [])
    await closeAll(opened.a, opened.b)
  })

  it('are found between requests that return promises if the first promise is not awaited', async () => {
    for (const isAwaited of [false, true]) {
      const network = createNetwork({ check: { races: true, failOn: 'never', onFinding: () => {} } })
      const [device, peerDevice] = [await open({ network }), await open({ network })]
      const [pd, peerPd] = [device.pd(), peerDevice.pd()]
      const mr = pd.register(new Uint8Array(128))
      const target = peerPd.register(new Uint8Array(64), access)
      const connected = () => {
        const [qp, peer] = [pd.rcQp(), peerPd.rcQp()]
        qp.connect(peer.endpoint)
        peer.connect(qp.endpoint)
        return qp
      }
      const [firstQp, secondQp] = [connected(), connected()]
      const first = firstQp.write(mr.slice(0, 64), target.remote())
      if (isAwaited) await first
      const second = secondQp.write(mr.slice(64, 64), target.remote())
      await Promise.all([first, second])
      assert.deepEqual(
        racesOf(device, peerDevice).map(({ id }) => id),
        isAwaited ? [] : ['race'],
      )
      await Promise.allSettled([device.close(), peerDevice.close()])
    }
  })

  it('are reported without a further call, and make `close` reject', async t => {
    let resolve: (id: string) => void = () => {}
    const reported = new Promise<string>(done => {
      resolve = done
    })
    // The checker's timer does not keep the process alive.
    const keepAlive = setInterval(() => {}, 1000)
    t.after(() => clearInterval(keepAlive))
    const opened = await openLinks({ failOn: 'error', onFinding: ({ id }) => resolve(id) })
    const [, run] = cases['two writes']!
    await run(opened)
    assert.equal(await reported, 'race')
    await assert.rejects(opened.a.device.close(), FindingsError)
    await Promise.allSettled([opened.b.device.close()])
  })

  it('may have the stack of an equal request if stacks are shared', async () => {
    const opened = await openLinks({ stacks: 'shared' })
    const { a, b, near } = opened
    // After the first 256 requests of a queue (CheckOptions.stacks), equal requests share stacks.
    for (let i = 0; i < 2000; i++) {
      a.qp.write(a.mr.slice(128, 64), b.mr.remote(1024, 64)) // RACE shared
      while (!a.cq.poll());
    }
    a.qp.write(a.mr.slice(128, 64), b.mr.remote(1024, 64)) // RACE shared, other line
    near.qp.write(a.mr.slice(64, 64), b.mr.remote(1024, 64)) // RACE unshared
    await completionText(near.cq)
    const [race] = racesOf(a.device, b.device)
    const lines = race?.moments.map(({ stack: [frame] }) => lineOf(frame)) ?? []
    const [unsharedLine = ''] = marked('unshared')
    assert.equal(lines.length, 2)
    assert.ok(lines.includes(unsharedLine), lines.join())
    for (const found of lines)
      assert.ok([unsharedLine, ...marked('shared'), ...marked('shared, other line')].includes(found), found)
    await closeAll(a, b)
  })
})
