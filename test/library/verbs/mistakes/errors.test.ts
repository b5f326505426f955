/*
 * Errors of the library: messages, names of states, `instanceof`.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { inspect } from 'node:util'
import {
  connect,
  createNetwork,
  type ErrorCode,
  FindingsError,
  open,
  type ProtectionDomain,
  type RcQueuePairOptions,
  RdmaError,
  RequestError,
} from '../../../../src/library/index.ts'
import { loopbackText } from '../../../loopback.ts'
import { closeAll, eachCarrier, nextCompletion, pair } from '../endpoints.ts'
import { untyped } from './mistakes.ts'

const messageOf = (body: () => unknown): string => {
  try {
    body()
  } catch (error) {
    assert.ok(error instanceof RdmaError, String(error))
    return error.message
  }
  return 'no error was thrown'
}

eachCarrier(openTwo => {
  test('the error of a refused option has its name, its value and the allowed values', async () => {
    const { a, b } = await pair(openTwo)
    const { device, pd, cq, qp } = a
    qp.modify({ state: 'RESET' })
    const peer = b.qp.endpoint
    const messages = [
      () => device.cq({ entries: 0 }),
      () => device.cq({ vector: 99 }),
      () => cq.resize(-1),
      () => cq.moderate({ completions: 70_000 }),
      () => cq.arm({ microseconds: untyped('x') }),
      () => pd.rcQp({ sendCq: cq, maxSendWr: -1 }),
      () => pd.rcQp({ sendCq: cq, maxSendWr: untyped('5') }),
      () => qp.connect(peer, { ackTimeoutExponent: 99 }),
      () => qp.connect(peer, { retryCount: 8 }),
      () => qp.connect(peer, { rnrRetryCount: 8 }),
      () => pd.srq({ maxSge: 1000 }),
      () => pd.srq().resize(0),
      () => pd.srq().setLimit(70_000),
      () => device.chain(chain => chain.cq({ entries: 0 })),
    ].map(messageOf)
    assert.deepEqual(messages, [
      'device.cq: entries: 0 is below 1 (EINVAL)',
      `device.cq: vector: 99: the device has vectors 0 to ${device.numCompVectors - 1} (EINVAL)`,
      'cq.resize: entries -1 is not a number of 32 bits (EINVAL)',
      'cq.moderate: completions: 70000 is above 65535 (EINVAL)',
      'cq.arm: microseconds: "x" is not a whole number from 0 to 4294967295 (EINVAL)',
      'pd.rcQp: maxSendWr: -1 is not a whole number from 0 to 4294967295 (EINVAL)',
      'pd.rcQp: maxSendWr: "5" is not a whole number from 0 to 4294967295 (EINVAL)',
      'qp.connect: ackTimeoutExponent: 99 is above 31 (EINVAL)',
      'qp.connect: retryCount: 8 is above 7 (EINVAL)',
      'qp.connect: rnrRetryCount: 8 is above 7 (EINVAL)',
      "pd.srq: maxSge: 1000 is above 27, the device's max_srq_sge (EINVAL)",
      'srq.resize: maxWr: 0 is below 1 (EINVAL)',
      `srq.setLimit: limit: 70000 is above ${pd.srq().maxWr}, the requests that the queue holds (EINVAL)`,
      'cq.create: entries: 0 is below 1 (entry 0 of a chain) (EINVAL)',
    ])
    assert.match(
      messageOf(() => pd.rcQp({ maxInlineData: 2 ** 20 })),
      /^pd\.rcQp: maxInlineData: 1048576 /,
    )
    // A refused connection does not change the queue pair.
    assert.equal(qp.state, 'RESET')
    qp.connect(peer)
    assert.equal(qp.state, 'RTS')
    await closeAll(a, b)
  })

  test('states are read and set by name; a queue pair that is reset can connect to another peer', async () => {
    const { a, b } = await pair(openTwo)
    a.qp.modify({ state: 'ERR' })
    assert.equal(a.qp.state, 'ERR')
    a.qp.modify({ state: 'RESET' })
    a.qp.connect(b.qp.endpoint)
    const inInit = a.pd.rcQp({ sendCq: a.cq, initial: { state: 'INIT', pkeyIndex: 0, port: 1, accessFlags: 0 } })
    assert.equal(inInit.state, 'INIT')
    assert.match(
      messageOf(() => a.qp.modify(untyped({ state: 'RESTE' }))),
      /"RESTE" is not a value of qp_state \(0 RESET, 1 INIT/,
    )
    const newPeer = b.pd.rcQp({ sendCq: b.cq })
    newPeer.connect(a.qp.endpoint)
    a.qp.modify({ state: 'RESET' })
    a.qp.connect(newPeer.endpoint)
    a.qp.write(Uint8Array.of(1), b.mr.remote(0, 1))
    assert.equal((await nextCompletion(a.cq)).statusName, 'SUCCESS')
    await closeAll(a, b)
  })
})

test('an address in use is refused with EADDRINUSE, an address of another machine with EADDRNOTAVAIL', async () => {
  const address = loopbackText(61)
  await using one = await open({ link: 'dgram', address })
  assert.equal(one.address, address)
  await assert.rejects(open({ link: 'dgram', address }), {
    code: 'EADDRINUSE',
    message: /in use.*give another address \(EADDRINUSE\)/,
  })
  await assert.rejects(open({ link: 'dgram', address: '203.0.113.9' }), {
    code: 'EADDRNOTAVAIL',
    message: /does not have the address 203\.0\.113\.9/,
  })
})

test('errors of another copy of the library are instances of this copy’s classes', async () => {
  const source = new URL('../../../../src/library/verbs/error.js', import.meta.url)
  const text = readFileSync(source, 'utf8')
    .replace(/\n\/\/# .*/, '')
    .replace(/from '\.\.\//g, `from '${new URL('..', source).href}`)
    .replace(/from '\.\//g, `from '${new URL('.', source).href}`)
  const otherCopy = (await import(
    `data:text/javascript,${encodeURIComponent(text)}`
  )) as typeof import('../../../../src/library/verbs/error.ts')
  assert.notEqual(otherCopy.RdmaError, RdmaError)
  const error = otherCopy.invalidArgument('a.b', 'c')
  assert.ok(error instanceof RdmaError && error instanceof otherCopy.RdmaError && error instanceof Error)
  assert.ok(!(error instanceof RequestError))
  assert.ok(!(new Error('x') instanceof RdmaError) && !RdmaError[Symbol.hasInstance](null))
  class Subclass extends RdmaError {}
  assert.ok(!(error instanceof Subclass))
  assert.ok(new otherCopy.FindingsError('rxe0', [], []) instanceof FindingsError)
})

test('the compiler distinguishes codes, statuses and kinds of objects; a wrong kind is refused', async () => {
  type Assignable<A, B> = [A] extends [B] ? true : false
  type SendCq = RcQueuePairOptions['sendCq']
  const compiled: {
    anyCode: Assignable<string, ErrorCode>
    code: Assignable<'EINVAL', ErrorCode>
    status: Assignable<'NO_SUCH_STATUS', RequestError['status']>
    pdAsCq: Assignable<ProtectionDomain, SendCq>
    bareHandle: Assignable<{ handle: number }, SendCq>
  } = { anyCode: false, code: true, status: false, pdAsCq: false, bareHandle: true }
  void compiled // tsc has checked the values
  const network = createNetwork()
  await using device = await open({ network })
  assert.match(
    messageOf(() => device.pd().rcQp({ sendCq: untyped(device.pd()) })),
    /sendCq is an object of class pd, not cq/,
  )
})

test('the stack of an error begins at the line of the program, also where a request failed later', async () => {
  const { a, b } = await pair()
  const client = a.pd.rcQp({ peer: b.qp.endpoint })
  const remote = { address: 0n, rkey: 1, length: 8 }
  /** The function of the first frame of the stack, without "async". */
  const callerOf = async (body: () => unknown): Promise<string> => {
    const error = await (async () => body())().catch(caught => caught)
    assert.ok(error instanceof RdmaError)
    return /\n {4}at (?:async )?(?:Promise\.all \(index \d\)\n {4}at async )?(\S+)/.exec(String(error.stack))?.[1] ?? ''
  }
  const calls = [
    function close() {
      a.pd.close()
    },
    function connect() {
      a.qp.connect({ ...b.qp.endpoint, gid: 'localhost' })
    },
    function create() {
      a.device.cq({ entries: 0 })
    },
    async function unposted() {
      await a.pd.rcQp().send(new Uint8Array(65))
    },
    async function failed() {
      await client.write(new Uint8Array(8), remote)
    },
    async function flushed() {
      await Promise.all([client.write(new Uint8Array(8), remote)])
    },
    async function opening() {
      await open({ link: untyped('none') })
    },
    async function connecting() {
      await connect('rdma://127.0.0.1:1', { device: a.device })
    },
  ]
  b.qp.modify({ state: 'RESET' })
  b.qp.connect(client.endpoint)
  const callers: string[] = []
  for (const call of calls) callers.push(await callerOf(call))
  assert.deepEqual(
    callers,
    calls.map(({ name }) => name),
  )
  await closeAll(a, b)
})

test('a printed error has its text once, and the earlier failure as its cause', async () => {
  const { a, b } = await pair()
  const client = a.pd.rcQp({ peer: b.qp.endpoint })
  b.qp.modify({ state: 'RESET' })
  b.qp.connect(client.endpoint)
  const write = () => client.write(new Uint8Array(8), { address: 0n, rkey: 1, length: 8 })
  const [failed, flushed] = (await Promise.allSettled([write(), write()])).map(result =>
    result.status === 'rejected' ? result.reason : undefined,
  )
  assert.ok(failed instanceof RequestError && flushed instanceof RequestError)
  assert.deepEqual([failed.causeName, 'cause' in failed, flushed.cause], ['RKEY_UNKNOWN', false, failed])
  assert.equal(inspect(flushed).split('was never registered').length, 2)
  await closeAll(a, b)
})
