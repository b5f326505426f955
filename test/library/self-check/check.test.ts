/*
 * Checked devices (`open({ check })`): findings about programs in TypeScript.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import {
  type CheckOptions,
  type Connection,
  type CountedFinding,
  connect,
  createNetwork,
  FindingsError,
  listen,
  open,
  type RemoteMemory,
} from '../../../src/library/index.ts'
import type { FindingId } from '../../../src/spec/check/findings.ts'
import { libraryUrl } from '../../paths.ts'
import { type Scope, temporaryFolder } from '../../system/programs.ts'
import { uncaughtDuring } from '../../uncaught.ts'
import { closeAll, completionText, endpointOn, openTwoInProcess, pair } from '../verbs/endpoints.ts'
import { lineOf, markedLines } from './marks.ts'

/** Default depth of receive queues. */
const MAX_RECV_WR = 16
/** More objects than the checker remembers after their destruction. */
const MANY_OBJECTS = 4200

/** All findings are kept, none is printed. */
const reportAll = { notes: true, onFinding: () => {} }
const checkedPair = (check: true | CheckOptions = reportAll) => pair(openTwoInProcess(createNetwork({ check })))
type Ends = Awaited<ReturnType<typeof checkedPair>>

/** The innermost lines of a finding's calls and requests, and of the histories of its objects. */
const linesOf = ({ moments, objects }: CountedFinding): string[] =>
  [...moments, ...objects.flatMap(({ history }) => history)].map(({ stack: [frame] }) => lineOf(frame))

/** Lines of this file with the mark of a finding. */
const marked = (id: string): string[] => markedLines('check.test.ts', `// FAULT ${id}`)

/** Closes all objects: none is a leak. */
const closeObjectsAndDevices = async ({ a, b }: Ends): Promise<void> => {
  for (const { qp, mr, cq, pd } of [a, b]) for (const one of [qp, mr, cq, pd]) one.close()
  await closeAll(a, b)
}

/** Programs with a fault, by the expected finding. The finding's stacks have all marked lines. */
const faults: Partial<Record<FindingId, (ends: Ends) => Promise<void> | void>> = {
  'stale-rkey': async ({ a, b }) => {
    const remote = b.mr.remote(0, 8)
    b.mr.close() // FAULT stale-rkey
    a.qp.write(a.mr.slice(0, 8), remote) // FAULT stale-rkey
    assert.equal(await completionText(a.cq), '0 REM_ACCESS_ERR')
  },
  'not-lent': async ({ a, b }) => {
    const read = async (): Promise<void> => {
      a.qp.read(a.mr.slice(0, 8), b.mr.remote(0, 8)) // FAULT not-lent
      assert.equal(await completionText(a.cq), '0 RDMA_READ')
    }
    await read()
    const lend = b.mr.lend({ read: true, length: 64, label: 'request 1' }) // FAULT not-lent
    await read()
    lend.takeBack() // FAULT not-lent
    lend.takeBack()
    await read()
  },
  'lent-changed': async ({ a, b }) => {
    const lend = b.mr.lend({ read: true, offset: 8, length: 8 }) // FAULT lent-changed
    b.mr.buffer[9]! ^= 1
    a.qp.read(a.mr.slice(0, 8), b.mr.remote(8, 8))
    assert.equal(await completionText(a.cq), '0 RDMA_READ')
    lend[Symbol.dispose]()
  },
  'unknown-rkey': async ({ a, b }) => {
    const remote: RemoteMemory = { ...b.mr.remote(0, 8), rkey: 0x1234 }
    // All requests have id 0.
    for (let i = 0; i < 3; i++) a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8))
    a.qp.write(a.mr.slice(0, 8), remote) // FAULT unknown-rkey
    a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8))
    for (let i = 0; i < 3; i++) assert.equal(await completionText(a.cq), '0 RDMA_WRITE')
    assert.equal(await completionText(a.cq), '0 REM_ACCESS_ERR')
  },
  'receive-too-short': async ({ a, b }) => {
    b.qp.receive(b.mr.slice(0, 100))
    b.qp.receive(b.mr.slice(0, 1)) // FAULT receive-too-short
    b.qp.receive(b.mr.slice(0, 100))
    a.qp.send(Uint8Array.of(1, 2))
    a.qp.send(Uint8Array.of(1, 2))
    assert.equal(await completionText(b.cq), '0 RECV')
    assert.equal(await completionText(b.cq), '0 LOC_LEN_ERR')
  },
  'psn-mismatch': async ({ a, b }) => {
    a.qp.modify({ state: 'RESET' })
    a.qp.connect({ ...b.qp.endpoint, psn: 5 }, { retryCount: 0, ackTimeoutExponent: 1 }) // FAULT psn-mismatch
    b.qp.modify({ state: 'RESET' })
    b.qp.connect({ ...a.qp.endpoint, psn: (a.qp.endpoint.psn - 5) & 0xffffff }) // FAULT psn-mismatch
    a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8))
    assert.equal(await completionText(a.cq), '0 RETRY_EXC_ERR')
  },
  'post-wrong-state': ({ a }) => {
    const qp = a.pd.rcQp({ sendCq: a.cq })
    const send = () => qp.send(Uint8Array.of(1)) // FAULT post-wrong-state
    assert.throws(send, { code: 'EINVAL' })
    qp.close()
  },
  'queue-full': ({ b }) => {
    const receive = () => b.qp.receive() // FAULT queue-full
    for (let i = 0; i < MAX_RECV_WR; i++) receive()
    assert.throws(receive, { code: 'ENOMEM' })
    const srq = b.pd.srq({ maxWr: 1 })
    const share = () => srq.receive() // FAULT queue-full
    for (let i = 0; i < srq.maxWr; i++) share()
    assert.throws(share, { code: 'ENOMEM' })
    srq.close()
  },
}

describe('a checked device', () => {
  for (const [id, fault] of Object.entries(faults))
    it(`finds ${id}, with its lines`, async () => {
      const ends = await checkedPair()
      await fault(ends)
      const found = [ends.a, ends.b].flatMap(({ device }) => device.findings)
      const named = found.filter(one => one.id === id)
      assert.ok(named.length > 0, `found ${found.map(one => one.id).join(', ') || 'nothing'}`)
      const lines = named.flatMap(linesOf)
      const marks = marked(id)
      assert.ok(marks.length > 0)
      for (const mark of marks) assert.ok(lines.includes(mark), `${mark} is not among ${lines.join(' ')}`)
      // Stacks have no frames of userdma or Node.
      for (const { stack } of named.flatMap(({ moments }) => moments))
        assert.doesNotMatch(stack.join(), /\/src\/|node:/)
      await Promise.allSettled([ends.a.device.close(), ends.b.device.close()])
    })

  it('finds nothing in a program without a fault', async () => {
    const found: unknown[] = []
    const ends = await checkedPair({ notes: true, onFinding: one => found.push(one) })
    const { a, b } = ends
    const srq = b.pd.srq()
    b.qp.receive(b.mr.slice(0, 100))
    a.qp.send(Uint8Array.of(1))
    a.qp.write(a.mr.slice(0, 100), b.mr.remote(0, 100))
    a.qp.read(a.mr.slice(0, 100), b.mr.remote(0, 100))
    for (const opcode of ['SEND', 'RDMA_WRITE', 'RDMA_READ']) assert.equal(await completionText(a.cq), `0 ${opcode}`)
    assert.equal(await completionText(b.cq), '0 RECV')
    srq.close()
    await closeObjectsAndDevices(ends)
    assert.deepEqual(found, [])
  })

  it('finds nothing in a program that reuses a buffer after a completion in a counting queue', async () => {
    const ends = await checkedPair()
    const { a, b } = ends
    const counting = b.device.cq({ kind: 'counting' })
    const buffer = b.pd.register(new Uint8Array(64))
    const receiver = b.pd.rcQp({ recvCq: counting, sendCq: b.cq })
    const sender = a.pd.rcQp({ sendCq: a.cq })
    receiver.connect(sender.endpoint)
    sender.connect(receiver.endpoint)
    for (let i = 0; i < 3; i++) {
      receiver.receive(buffer.slice(0, 64))
      sender.send(Uint8Array.of(i))
      assert.equal(await completionText(a.cq), '0 SEND')
      while (counting.count <= i) await counting.wait()
    }
    buffer.close()
    for (const one of [receiver, sender, counting]) one.close()
    await closeObjectsAndDevices(ends)
    const found = [a, b].flatMap(({ device }) => device.findings)
    assert.deepEqual(
      found.map(({ id }) => id),
      [],
    )
  })

  it('finds open objects at its close', async () => {
    const device = await open({ check: reportAll })
    device.pd() // FAULT leak
    device.cq().close()
    await device.close()
    const [finding, ...others] = device.findings
    assert.deepEqual([finding?.id, finding?.severity, others.length], ['leak', 'note', 0])
    assert.deepEqual(finding && linesOf(finding), marked('leak'))
  })

  it('finds no objects that the library has created for itself', async () => {
    const network = createNetwork({ check: reportAll })
    const [one, two] = [await open({ network }), await open({ network })]
    const listener = await listen('rdma://0.0.0.0:0', { device: one })
    const accepted = (async () =>
      (await listener[Symbol.asyncIterator]().next()).value.accept() as Promise<Connection>)()
    const connection = await connect(`rdma://${one.address}:${listener.port}`, { device: two })
    const mr = connection.pd.register(new Uint8Array(8))
    mr.close()
    const [pd, otherEnd] = [two.pd(), await accepted]
    const pdHandle = pd.handle
    const qp = pd.rcQp() // Closed with its device, as documented: a note.
    for (const end of [connection, otherEnd, listener]) await end.close()
    await closeAll({ device: one }, { device: two })
    assert.deepEqual(
      [one, two].map(({ findings }) => findings.map(({ severity, text }) => `${severity} ${text}`)),
      [[], [`note QP 0x${qp.qpn.toString(16)} was never destroyed`, `note PD ${pdHandle} was never destroyed`]],
    )
  })

  it('reports each finding once, and counts repetitions', async () => {
    let reported = 0
    const { a, b } = await checkedPair({ notes: true, onFinding: () => reported++ })
    for (let i = 0; i < 3; i++) assert.throws(() => a.pd.close(), { code: 'EBUSY' })
    assert.deepEqual(
      a.device.findings.map(({ id, count }) => [id, count]),
      [['destroy-busy', 3]],
    )
    assert.equal(reported, 1)
    assert.deepEqual(b.device.findings, [])
    await closeObjectsAndDevices({ a, b })
  })

  it('finds queue pairs and requests that other adapters refuse', async () => {
    const ends = await checkedPair({ ...reportAll, like: ['mlx5', 'irdma'] })
    const { a, b } = ends
    const qp = a.pd.rcQp({ sendCq: a.cq, maxInlineData: 200 }) // FAULT adapter-limit
    qp.close()
    a.qp.fetchAdd(a.mr.slice(0, 8), b.mr.remote(0, 8), 1n) // FAULT adapter-operation
    assert.equal(await completionText(a.cq), '0 FETCH_ADD')
    const findingsWith = (id: string) => a.device.findings.filter(one => one.id === id)
    assert.deepEqual(
      findingsWith('adapter-limit').map(({ text }) => text),
      ['max_inline_data 200 exceeds 101 of irdma (Intel E810)'],
    )
    for (const id of ['adapter-limit', 'adapter-operation'])
      assert.ok(
        findingsWith(id)
          .flatMap(linesOf)
          .includes(marked(id)[0] ?? ''),
        id,
      )
    await closeObjectsAndDevices(ends)
  })

  it('refuses a receive with an invalid id on a full queue as an unchecked device does', async () => {
    for (const network of [createNetwork(), createNetwork({ check: reportAll })]) {
      const ends = await pair(openTwoInProcess(network))
      const { qp, pd } = ends.a
      for (let i = 0; i < MAX_RECV_WR; i++) qp.receive()
      const srq = pd.srq({ maxWr: 1 })
      for (let i = 0; i < srq.maxWr; i++) srq.receive()
      for (const queue of [qp, srq])
        assert.throws(() => queue.receive(undefined, 1.5), { name: 'RdmaError', code: 'EINVAL' })
      srq.close()
      await closeObjectsAndDevices(ends)
    }
  })

  it('has no findings about unchecked devices of its network', async () => {
    const network = createNetwork()
    const [a, b] = [await open({ network, check: reportAll }), await open({ network })]
    for (const device of [a, b]) assert.throws(() => device.cq({ vector: 99 }), { code: 'EINVAL' })
    assert.deepEqual([a.findings.length, b.findings.length], [1, 0])
    const secondHandle = await open({ network, device: 'rxe1', check: reportAll })
    secondHandle.pd()
    await closeAll({ device: secondHandle }, { device: b }, { device: a })
    assert.deepEqual(
      secondHandle.findings.map(({ id }) => id),
      ['leak'],
    )
  })
})

it('a finding is about the context that made the mistake', async () => {
  const network = createNetwork()
  const device = await open({ network })
  const openAgain = () => open({ network, device: 'rxe0', check: { ...reportAll, failOn: 'note' } })
  const [one, other] = [await openAgain(), await openAgain()]
  other.pd()
  await assert.rejects(other.close(), FindingsError)
  await one.close()
  await device.close()
  assert.deepEqual(
    [one, other].map(({ findings }) => findings.map(({ id }) => id)),
    [[], ['leak']],
  )
})

it('an exception of onFinding is uncaught', async () => {
  const device = await open({
    check: {
      notes: true,
      onFinding() {
        throw new Error('mine')
      },
    },
  })
  const uncaught = await uncaughtDuring(async () => {
    device.pd()
    await device.close()
  })
  assert.deepEqual(uncaught, ['mine'])
  assert.deepEqual(
    device.findings.map(({ id }) => id),
    ['leak'],
  )
})

describe('close() of a checked device', () => {
  const withFault = async (check: true | CheckOptions) => {
    const ends = await checkedPair(check)
    await faults['unknown-rkey']?.(ends)
    await ends.b.device.close()
    return ends.a.device
  }

  it('rejects with the text of the findings, and closes', async () => {
    const device = await withFault(reportAll)
    await assert.rejects(device.close(), (error: unknown) => {
      assert.ok(error instanceof FindingsError)
      assert.equal(error.code, 'ERR_USERDMA_FINDINGS')
      assert.deepEqual(
        error.findings.map(({ id }) => id),
        ['unknown-rkey'],
      )
      assert.match(error.message, /^device rxe0: 1 finding\n\nuserdma check: error unknown-rkey: rxe0: QP 0x/)
      assert.ok(error.message.includes(`test/library/self-check/${marked('unknown-rkey')[0]}\n`), error.message)
      return true
    })
    assert.throws(() => device.pd(), { code: 'ERR_CLOSED', reason: 'the device is closed' })
    await device.close()
  })

  it('rejects if a finding has at least the severity `failOn` and is not ignored', async () => {
    await (await withFault({ ...reportAll, failOn: 'never' })).close()
    const ignoring = await withFault({ ...reportAll, ignore: ['unknown-rkey', 'leak'] })
    await ignoring.close()
    assert.deepEqual(ignoring.findings, [])
    for (const [failOn, fails] of [
      ['note', true],
      ['warning', false],
    ] as const) {
      const device = await open({ check: { ...reportAll, failOn } })
      device.pd()
      const closed = device.close()
      if (fails) await assert.rejects(closed, FindingsError)
      else await closed
    }
  })
})

describe('the option `check`', () => {
  it('refuses invalid values', async () => {
    const refuses = (check: unknown, message: RegExp) =>
      assert.rejects(open({ check: check as true }), { code: 'EINVAL', message })
    await refuses('yes', /^open: check "yes" is not true, false or an object of options/)
    await refuses({ failon: 'error' }, /check: "failon" is unknown/)
    await refuses({ failOn: 'bad' }, /check.failOn "bad" is not one of note, warning, error, never/)
    await refuses({ ignore: ['stale'] }, /check.ignore: there is no finding "stale"/)
    await refuses({ ignore: 'stale-rkey' }, /check.ignore "stale-rkey" is not a list/)
    await refuses({ ignore: new Set() }, /check.ignore an object is not a list \(EINVAL\); give an array/)
    await refuses({ onFinding: 1 }, /check.onFinding 1 is not a function/)
    await refuses({ like: ['mlx9'] }, /check.like "mlx9" is not one of mlx5, .*, rxe, infiniband/)
    await refuses({ notes: 1 }, /check.notes 1 is not true or false/)
  })

  it('is refused for a device of a daemon, with the name of the command', async () => {
    await assert.rejects(open({ socket: '/nowhere', check: true }), { code: 'EINVAL', message: /userdma check/ })
  })
})

describe('a program with a checked device', () => {
  const run = (scope: Scope, body: string, ...options: string[]) => {
    const file = join(temporaryFolder(scope), 'program.mjs')
    writeFileSync(file, `import { open } from '${libraryUrl}'\n${body}\n`)
    // With NODE_TEST_CONTEXT, node:test in the program would act as a child of this test.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env
    return spawnSync(process.execPath, [...options, file], { encoding: 'utf8', env })
  }
  /** Has the finding destroy-busy, and leaks if the device is closed. */
  const closeBusyPd = [
    'const device = await open({ check: true })',
    'const pd = device.pd()',
    'pd.register(new Uint8Array(8))',
    'try { pd.close() } catch {}',
  ].join('\n')

  it('prints findings as the command does', t => {
    const { status, stderr, stdout } = run(t, `${closeBusyPd}\nawait device.close()`)
    assert.deepEqual([status, stdout], [0, ''])
    assert.match(
      stderr,
      /^userdma check: warning destroy-busy: rxe0: PD 0 cannot be destroyed, it is used by MR 0x\w+ of 8 bytes \(EBUSY\)\n {2}called\n {4}#0 <anonymous> at \S*program\.mjs:5\n/,
    )
    assert.doesNotMatch(stderr, /leak|ibv_/)
    assert.match(stderr, /^ {2}advice: close the objects that use it first$/m)
  })

  it('exits with 65 (FOUND_STATUS) for findings if the device was not closed', t => {
    const failing = closeBusyPd.replace('true', '{ failOn: "warning" }')
    assert.equal(run(t, failing).status, 65)
    assert.equal(run(t, closeBusyPd).status, 0)
    assert.match(run(t, closeBusyPd).stderr, /warning leak: rxe0/)
    assert.equal(run(t, `${failing}\nprocess.exit(3)`).status, 3)
  })

  it('prints at its exit what was left out', t => {
    const body = `const device = await open({ check: true })\nfor (let i = 0; i < ${MANY_OBJECTS}; i++) device.pd().close()`
    assert.match(run(t, body).stderr, /^userdma check: left out: \d+ destroyed objects were forgotten/m)
  })

  const leakPd = 'const device = await open({ check: { notes: true } })\ndevice.pd()\nawait device.close()'

  it('has stacks without frames of userdma, although --stack-trace-limit is 0', t => {
    assert.match(
      run(t, leakPd, '--stack-trace-limit=0').stderr,
      /^userdma check: note leak: .*\n {2}created\n {4}#0 <anonymous> at \S*program\.mjs:3\n {2}advice/,
    )
  })

  it('runs with frozen intrinsics', t => {
    const { status, stderr } = run(t, leakPd, '--frozen-intrinsics')
    assert.equal(status, 0, stderr)
    assert.match(stderr, /^userdma check: note leak: /m)
  })

  it('fails a test of node:test', t => {
    const test = (name: string, failOn: string) =>
      `test('${name}', async t => {
        const device = await open({ check: { failOn: '${failOn}' } })
        t.after(() => device.close())
        device.pd()
      })`
    const body = `import { test } from 'node:test'\n${test('one', 'note')}\n${test('two', 'error')}`
    const { status, stdout } = run(t, body, '--test', '--test-reporter=tap')
    assert.equal(status, 1)
    assert.match(stdout, /^not ok 1 - one$/m)
    assert.match(stdout, /ERR_USERDMA_FINDINGS/)
    assert.match(stdout, /^ok 2 - two$/m)
  })
})

it('requests to peers on an unchecked device of the network are no findings', async () => {
  const network = createNetwork()
  const a = endpointOn(await open({ network, check: reportAll }))
  const b = endpointOn(await open({ network }))
  a.qp.connect(b.qp.endpoint)
  b.qp.connect(a.qp.endpoint)
  a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8))
  assert.equal(await completionText(a.cq), '0 RDMA_WRITE')
  const from = a.pd.udQp({ sendCq: a.cq, active: true })
  const to = b.pd.udQp({ sendCq: b.cq, active: true })
  to.receive(b.mr.slice())
  const ah = a.pd.addressHandle(to.endpoint)
  from.send(Uint8Array.of(1), { ...to.endpoint, ah }, { id: 1 })
  assert.equal(await completionText(a.cq), '1 SEND')
  assert.equal(await completionText(b.cq), '0 RECV')
  for (const one of [ah, from, a.qp, a.mr, a.cq, a.pd]) one.close()
  assert.deepEqual(a.device.findings, [])
  await closeAll(a, b)
})

it('a peer on an unchecked device that is closed first is no finding', async () => {
  const network = createNetwork()
  const a = endpointOn(await open({ network, check: reportAll }))
  const b = endpointOn(await open({ network, device: 'rxe0' }))
  a.qp.connect(b.qp.endpoint)
  b.qp.connect(a.qp.endpoint)
  await b.device.close()
  for (const one of [a.qp, a.mr, a.cq, a.pd]) one.close()
  assert.deepEqual(a.device.findings, [])
  await a.device.close()
})

it('a program that connects again after a fault rule lost its packets has a note', async () => {
  const network = createNetwork({ check: reportAll })
  const ends = await pair(openTwoInProcess(network))
  const { a, b } = ends
  const connectAgain = (): void => {
    for (const end of [a, b]) end.qp.modify({ state: 'RESET' })
    a.qp.connect(b.qp.endpoint, { retryCount: 0, ackTimeoutExponent: 1 })
    b.qp.connect(a.qp.endpoint)
  }
  connectAgain()
  await network.setFaults('drop=1')
  a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8))
  assert.equal(await completionText(a.cq), '0 RETRY_EXC_ERR')
  await network.setFaults('')
  connectAgain()
  a.qp.write(a.mr.slice(0, 8), b.mr.remote(0, 8))
  assert.equal(await completionText(a.cq), '0 RDMA_WRITE')
  const [finding] = a.device.findings.filter(({ id }) => id === 'no-answer')
  assert.equal(finding?.severity, 'note')
  assert.match(finding.text, /: the fault rule drop=1 lost, damaged or delayed packets of the connection$/)
  await closeObjectsAndDevices(ends)
})
