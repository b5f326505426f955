/*
 * Programs of test/programs with libibverbs, and one of the object dialect.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import {
  assertFaultsInjected,
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
import { runPair } from './pingpong.ts'

const verbsCheck = ownProgram('verbs_check')

const programs = [
  verbsCheck,
  ownProgram('verbs_errors'),
  ownProgram('memory_windows'),
  ownProgram('threads'),
  ownProgram('armings'),
  ownProgram('fork_safe'),
]

describe('programs of test/programs with libibverbs', { skip: lacking(...programs) }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  const modes: readonly (readonly [name: string, args: readonly string[]])[] = [
    ['small messages', ['-s', '64', '-n', '2000', '-S', '1']],
    ['MTU 256', ['-m', '256', '-s', '5000', '-n', '1000', '-S', '2']],
    ['MTU 4096 with events', ['-m', '4096', '-s', '20000', '-n', '1000', '-S', '3', '-e']],
    ['long messages', ['-m', '1024', '-s', '300000', '-n', '200', '-S', '4']],
  ]
  for (const [name, args] of casesOf(modes, (_, i) => i === 1 || i === 2)) {
    it(`every byte of every operation arrives: ${name}`, async t => {
      const { server, client } = await runPair(t, daemon, ['-g', '1', ...args], {
        program: verbsCheck,
        devices: ['rxe0', 'rxe1'],
      })
      assertGood(client)
      assertGood(server)
    })
    it(`every byte of every operation arrives between queue pairs of one process: ${name}`, async t => {
      assertGood(await run(t, verbsCheck, ['-g', '1', '-d', 'rxe0', '-x', 'rxe1', '-1', ...args], { env: daemon.env }))
    })
  }

  it('errors complete with the statuses of the specification', async t => {
    assertGood(await run(t, ownProgram('verbs_errors'), ['-d', 'rxe0', '-g', '1'], { env: daemon.env }))
  })

  it('a child uses data on registered pages after ibv_fork_init', async t => {
    assertGood(await run(t, ownProgram('fork_safe'), ['-d', 'rxe0'], { env: daemon.env }))
  })

  it('memory windows, invalidation, ATOMIC WRITE and FLUSH have their results and errors', async t => {
    assertGood(await run(t, ownProgram('memory_windows'), ['-d', 'rxe0', '-g', '1'], { env: daemon.env }))
  })

  for (const forks of [[], ['-f']])
    it(`many threads use one context${forks.length > 0 ? ', and one of them forks' : ''}`, async t => {
      assertGood(await run(t, ownProgram('threads'), ['-d', 'rxe0', '-g', '1', ...forks], { env: daemon.env }))
    })

  for (const wild of [[], ['-w']])
    it(`CQs are armed without calls${wild.length > 0 ? ', and random words harm only the program itself' : ', and no event is lost'}`, async t => {
      assertGood(await run(t, ownProgram('armings'), ['-d', 'rxe0', '-g', '1', ...wild], { env: daemon.env }))
    })

  it('memory windows work over UDP, and the trace names their calls', async t => {
    const args = ['trace', '--private', '--link', 'udp', '--device', `rxe0@${loopbackText(61)}`, '--']
    const finished = await run(t, userdma, [...args, ownProgram('memory_windows'), '-g', '1'])
    assertGood(finished)
    const output = finished.stdout + finished.stderr
    for (const name of ['mw.create(pd', 'type TYPE_2', 'mw.destroy', 'access LOCAL_WRITE|MW_BIND'])
      assert.ok(output.includes(name), `the trace does not have ${name}`)
  })

  it('leave nothing behind', async () => {
    await daemon.settled(isEmpty)
  })

  for (const fault of ['drop=0.01,seed=3', 'dup=0.05,reorder=0.05,seed=4', 'corrupt=0.02,seed=5']) {
    it(`every byte arrives with ${fault}`, async t => {
      const lossy = await startDaemon(t, { devices: TWO_DEVICES, fault })
      const args = ['-g', '1', '-s', '20000', '-n', '200', '-S', '6', '-m', '1024']
      const { server, client } = await runPair(t, lossy, args, { program: verbsCheck, devices: ['rxe0', 'rxe1'] })
      assertGood(client)
      assertGood(server)
      await assertFaultsInjected(lossy)
      await lossy.settled(isEmpty)
    })
  }
})

describe('a C program of the object dialect', { skip: lacking(ownProgram('object_dialect')) }, () => {
  it('opens the device and makes calls without a library', async t => {
    const daemon = await startDaemon(t)
    assertGood(await run(t, ownProgram('object_dialect'), [], { env: daemon.env }))
    await daemon.settled(isEmpty)
  })
})
