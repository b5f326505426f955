/*
 * Findings about destroyed objects, and about programs that a signal ends.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { UseOfGone } from '../../../src/spec/check/program-events.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import { AddressFault, GoneUse, ObjectKind, UNKNOWN_NUMBER } from '../../../src/spec/session.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { requestScenario } from './requests.ts'

const program = { pid: 1, command: 'client' }

const used = (changes: Partial<UseOfGone> = {}): UseOfGone => ({
  time: 100,
  program,
  function: 'ibv_post_send',
  kind: ObjectKind.QP,
  number: 1,
  use: GoneUse.CALL,
  isOwner: false,
  stack: ['main'],
  destroyedAt: 10,
  destroyedStack: ['destroy'],
  value: 0n,
  ...changes,
})

it('of several objects that had a number, the one that was destroyed at the time is meant', () => {
  const s = requestScenario()
  const destroyAt = (microseconds: number, length: bigint): void => {
    const region = s.register({ length }, Number(length))
    s.advance(microseconds)
    s.destroy('mr', region)
  }
  for (const length of [1n, 2n, 3n]) destroyAt(1000, length)
  for (const [destroyedAt, lkey] of [
    [1100, 1],
    [2900, 3],
    [2100, 2],
  ] as const) {
    s.checker.event({
      event: 'usedGone',
      ...used({
        function: 'ibv_dereg_mr',
        kind: ObjectKind.MR,
        number: UNKNOWN_NUMBER,
        destroyedAt,
        stack: [`line ${lkey}`],
      }),
    })
    assert.match(s.found.at(-1)?.objects[0]?.name ?? '', new RegExp(`^MR 0x${lkey} of `))
  }
})

it('an unknown object, and one without an object of the kernel, has the stack of its destruction', () => {
  const s = requestScenario()
  s.checker.event({ event: 'usedGone', ...used({ number: 77 }) })
  s.checker.event({
    event: 'usedGone',
    ...used({ function: 'rdma_ack_cm_event', kind: ObjectKind.CM_EVENT, number: UNKNOWN_NUMBER, use: GoneUse.DESTROY }),
  })
  assert.deepEqual(
    s.found.map(({ text, objects, moments }) => ({ text, objects, stacks: moments.map(({ stack }) => stack) })),
    [
      {
        text: 'ibv_post_send on QP 0x4d, which was destroyed',
        objects: [],
        stacks: [['main'], ['destroy']],
      },
      {
        text: 'rdma_ack_cm_event on an event of rdma_cm, which was acknowledged already',
        objects: [],
        stacks: [['main'], ['destroy']],
      },
    ],
  )
})

it('an object of another program is not named, unless only that has the number', () => {
  const s = requestScenario()
  s.destroy('rc_qp', s.qp)
  s.checker.event({ event: 'usedGone', ...used({ program: { pid: 2, command: 'child' } }) })
  assert.deepEqual(
    s.found.map(({ objects }) => objects.map(({ name }) => name)),
    [['QP 0x1 of process 1 (client)']],
  )
})

it('a message with an unknown kind, or with a text that is no name of a function, is ignored', () => {
  const s = requestScenario()
  s.checker.event({ event: 'usedGone', ...used({ kind: 0 }) })
  s.checker.event({ event: 'usedGone', ...used({ kind: 0xffff_ffff }) })
  s.checker.event({ event: 'usedGone', ...used({ function: 'ibv_post_send\n\u001b[2J' }) })
  s.checker.event({ event: 'usedGone', ...used({ function: '' }) })
  s.checker.event({ event: 'usedGone', ...used({ use: 99, number: 77, function: 'ibv_query_qp' }) })
  assert.deepEqual(
    s.found.map(({ text }) => text),
    ['ibv_query_qp on QP 0x4d, which was destroyed'],
  )
})

it('a death is an error if a function of verbs is in the stack', () => {
  const s = requestScenario()
  const provider = '/usr/lib/libibverbs/librxe-rdmav34.so+0x1000'
  const verbs = '/lib/libibverbs.so.1+0x2000 ibv_modify_qp'
  const main = '/home/me/program+0x3000 main'
  for (const [stack, isInOurs] of [
    [[provider, verbs, main], false],
    [[provider, main], false],
    [[main], true],
    [[main], false],
  ] as const)
    s.checker.event({ event: 'died', time: 0, program, signal: 'SIGSEGV', isInOurs, stack })
  assert.deepEqual(
    s.found.map(({ severity, text }) => `${severity}: ${text}`),
    [
      'error: died of SIGSEGV in ibv_modify_qp',
      'error: died of SIGSEGV in a function of verbs',
      'error: died of SIGSEGV in a function of verbs',
      'warning: died of SIGSEGV',
    ],
  )
})

it('what follows from an explained death is a note, and says from what; of an unexplained one it is an error', () => {
  const died = (address: bigint) => {
    const s = requestScenario()
    s.complete(s.post({ wrId: 0x7fff_1234_0000n }))
    const fault = { fault: AddressFault.UNMAPPED, address }
    s.checker.event({ event: 'died', time: 1, program, signal: 'SIGSEGV', isInOurs: false, stack: ['main'], ...fault })
    s.fail({ id: 'REMOTE_ENDED', args: {} })
    return s.found.map(({ id, severity, number, follows }) => ({ id, severity, number, follows }))
  }
  assert.deepEqual(died(0x1234_0010n), [
    { id: 'program-died', severity: 'error', number: 1, follows: undefined },
    { id: 'peer-ended', severity: 'note', number: 2, follows: 1 },
  ])
  assert.deepEqual(died(0x10n), [
    { id: 'program-died', severity: 'warning', number: 1, follows: undefined },
    { id: 'peer-ended', severity: 'error', number: 2, follows: undefined },
  ])
})

it('a death at a wr_id is told with the last poll and the post', () => {
  const s = requestScenario()
  s.complete(s.post({ wrId: 0x7fff_1234_0000n }))
  const fault = { fault: AddressFault.UNMAPPED, address: 0x7fff_1234_0800n, pollStack: ['take'] }
  s.checker.event({ event: 'died', time: 1, program, signal: 'SIGSEGV', isInOurs: false, stack: ['main'], ...fault })
  const [{ severity, moments, details } = {}] = s.found
  assert.equal(severity, 'error')
  assert.deepEqual(
    moments?.map(({ action, stack }) => `${action}: ${stack}`),
    ['ended: main', 'polled: take', 'posted: posted'],
  )
  assert.match(details?.[0] ?? '', /^0x7fff12340800 is 2048 bytes behind the wr_id of WRITE/)
})

it('a failure that was polled, and after which the program went on, is told with a later error of its queue pair', () => {
  const detailsOf = (between: 'poll' | 'nothing' | 'reset') => {
    const s = requestScenario()
    s.complete(s.post({ wrId: 9n }), WcStatus.values.RETRY_EXC_ERR)
    s.advance(1)
    if (between !== 'nothing') s.poll(1)
    if (between === 'reset') s.call('rc_qp', 'modify', s.qp, { state: QpState.values.RESET })
    s.advance(1)
    s.fail({ id: 'RKEY_UNKNOWN', args: { key: 5 } })
    const error = s.found.find(({ severity }) => severity === 'error')
    assert.ok(error !== undefined)
    const told = error.story?.some(({ text }) => text === 'the program has polled the failure of WRITE wr_id 9')
    return [
      error.details.some(line => /^the program had polled the failure of WRITE wr_id 9 \(RETRY_EXC/.test(line)),
      told,
    ]
  }
  assert.deepEqual(detailsOf('poll'), [true, true])
  assert.deepEqual(detailsOf('nothing'), [false, false])
  assert.deepEqual(detailsOf('reset'), [false, true])
})

it('what a program leaves that ends after an error follows from it, unless it has gone on', () => {
  const leakOf = (goesOn: boolean) => {
    const s = requestScenario()
    s.fail({ id: 'RKEY_UNKNOWN', args: { key: 5 } })
    if (goesOn) s.create('pd')
    s.call('rc_qp', 'destroy', s.qp, {}, { why: 'close' })
    const [error, leak] = s.found
    assert.equal(error?.severity, 'error')
    return { severity: leak?.severity, follows: leak?.follows }
  }
  assert.deepEqual(leakOf(false), { severity: 'note', follows: 1 })
  assert.deepEqual(leakOf(true), { severity: 'warning', follows: undefined })
})

it('a crash at a member of a struct is of the NULL of a refused call only if one was refused, and none made since', () => {
  const diedAt = (address: number, calls: readonly ('refused' | 'made')[]) => {
    const s = requestScenario()
    const object = { id: 99, handle: 99, class: { name: 'mr' } }
    const call = { ...{ time: 0, device: 'rxe0', deviceNumber: 0, context: 0, program }, class: 'mr', method: 'create' }
    for (const outcome of calls)
      s.checker.event({
        event: 'called',
        ...{ ...call, why: 'call', args: {}, stack: ['register'] },
        ...(outcome === 'made'
          ? { object, out: {} }
          : { object: undefined, out: {}, refused: { errno: Errno.EINVAL, reason: because`no memory` } }),
      })
    const fault = { fault: AddressFault.UNMAPPED, address: BigInt(address) }
    s.checker.event({ event: 'died', time: 1, program, signal: 'SIGSEGV', isInOurs: false, stack: ['main'], ...fault })
    const { severity, text, moments } = s.found.at(-1)!
    return {
      severity,
      isOfNull: text.includes('lkey of the ibv_mr that a refused call has returned'),
      moments: moments.length,
    }
  }
  assert.deepEqual(diedAt(0x24, ['refused']), { severity: 'error', isOfNull: true, moments: 2 })
  for (const [address, calls] of [
    [0x24, []],
    [0x24, ['refused', 'made']],
    [0x44, ['refused']],
  ] as const)
    assert.deepEqual(diedAt(address, calls), { severity: 'warning', isOfNull: false, moments: 1 })
})
