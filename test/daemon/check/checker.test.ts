/*
 * Stacks and refused posts that programs report to a checking daemon.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createCore } from '../../../src/core/devices/registry.ts'
import { DaemonChecker } from '../../../src/daemon/check/checker.ts'
import { createContainment } from '../../../src/daemon/containment.ts'
import { Contexts } from '../../../src/daemon/context/contexts.ts'
import { createFailureReports } from '../../../src/daemon/failures.ts'
import { ProgramLines } from '../../../src/daemon/program-lines.ts'
import { createRingPool } from '../../../src/host/memory/mapping.ts'
import type { Stack } from '../../../src/spec/check/finding.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { PreloadEvents, type PreloadMessageName, preloadMessageNames } from '../../../src/spec/preload-events.ts'
import { MAX_STACKS } from '../../../src/spec/session.ts'
import { scratchFolder } from '../../tools.ts'
import { Command, createCq, createRcQp, daemonOf, dial } from '../client.ts'

const folder = scratchFolder()
/** The answer to a STACK message if a checking daemon does not keep the stack. */
const NOT_KEPT = -Errno.ENOSPC
/** Maximum length of the text in a STACK message. */
const MAX_TEXT = 4087

test('a process has at most 4096 stacks with different ids; a new session starts without stacks', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1'], { check: true })
  const client = dial(t, daemon)
  await client.hello()
  for (let id = 1; id <= MAX_STACKS; id++) assert.equal(await client.stack(id, `/app+0x${id.toString(16)} main\n`), 0)
  assert.equal(await client.stack(MAX_STACKS + 1, '/app+0x1 main\n'), NOT_KEPT)
  assert.equal(await client.stack(1, '/app+0x1 main\n'), NOT_KEPT)
  const newSession = dial(t, daemon)
  await newSession.hello()
  assert.equal(await newSession.stack(1, '/other+0x1 main\n'), 0)
  assert.equal(await newSession.stack(1, '/other+0x1 main\n'), NOT_KEPT)
})

test('the stacks of a process are limited to 16 MiB, counting text and frames', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1'], { check: true })
  const client = dial(t, daemon)
  await client.hello()
  const long = 'x'.repeat(MAX_TEXT)
  const manyFrames = 'x\n'.repeat(Math.floor(MAX_TEXT / 2))
  let id = 0
  // The daemon keeps only the first 64 frames of a stack, but charges the whole text, and 32 bytes per frame that it
  // keeps: 5 KiB on average, so that 3273 stacks fit.
  while ((await client.stack(++id, id % 2 === 0 ? long : manyFrames)) === 0);
  assert.ok(id > 3200 && id < 3300 && id < MAX_STACKS, `stack ${id} is not kept`)
})

test('a daemon that does not check programs accepts every stack and keeps none', async t => {
  const client = dial(t, await daemonOf(t, folder))
  await client.hello()
  for (let i = 0; i < 2; i++) assert.equal(await client.stack(1, '/app+0x1 main\n'), 0)
})

test('events of preload libraries, and stacks, with random contents are answered, and the checker continues', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1'], { check: true })
  const client = dial(t, daemon)
  await client.hello()
  const context = await client.context()
  const { response } = await client.command(context, Command.ALLOC_PD, [], 2)
  const qpn = await createRcQp(client, context, response[0]!, await createCq(client, context))
  const u32 = fc.oneof(fc.nat(8), fc.constant(qpn), fc.integer({ min: 0, max: 2 ** 32 - 1 }))
  const u64 = fc.oneof(fc.bigInt({ min: 0n, max: 8n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
  const text = fc.string({ unit: 'binary', maxLength: 60 })
  const bodyOf = (name: PreloadMessageName) =>
    fc.record(
      Object.fromEntries(
        PreloadEvents[name].layout.fields.map(({ name: field, type, size }): [string, fc.Arbitrary<unknown>] => [
          field,
          type === 'bytes' ? text.filter(value => Buffer.byteLength(value) < size) : type === 'u64' ? u64 : u32,
        ]),
      ),
    )
  const event = fc.constantFrom(...preloadMessageNames).chain(name => fc.tuple(fc.constant(name), bodyOf(name)))
  await fc.assert(
    fc.asyncProperty(
      u32,
      u32,
      fc.string({ unit: 'binary', maxLength: 400, size: 'max' }),
      fc.array(event, { maxLength: 20 }),
      async (stack, otherContext, frames, events) => {
        await client.stack(stack, frames)
        for (const [name, body] of events) {
          assert.equal(await client.event(name, context, stack, body), 0)
          assert.equal(await client.event(name, otherContext, stack, body), 0)
        }
      },
    ),
  )
  const reply = await client.tool({ kind: 'counts' })
  assert.ok('counts' in reply && reply.counts.length > 0)
})

/** What a daemon without devices has. */
const none = { waits: () => [], devices: { all: [] }, cm: { identifiersOfPrograms: () => [] } }

test('the frames of the newest programs come first: a recording asks for a part of those of a daemon that serves many', () => {
  const core = createCore()
  const containment = createContainment(() => {})
  const ignore = (): void => {}
  const contexts = new Contexts(createRingPool(), ignore, ignore, containment)
  const failures = createFailureReports(core, () => 0, new ProgramLines(ignore, () => 0), ignore)
  const checker = new DaemonChecker(core, () => 0, { ...none, contexts, failures, containment })
  for (const pid of [1, 2, 3])
    checker.stacks.define({}, { pid, namespacePid: pid }, 1, `/app${pid}+0x1 main\n/libc+0x1 f`)
  assert.deepEqual(checker.frames(3), ['/app3+0x1 main', '/libc+0x1 f', '/app2+0x1 main'])
})

test('the steps of a call that continues later have the stack of the call', () => {
  const core = createCore()
  const containment = createContainment(() => {})
  const ignore = (): void => {}
  const contexts = new Contexts(createRingPool(), ignore, ignore, containment)
  const failures = createFailureReports(core, () => 0, new ProgramLines(ignore, () => 0), ignore)
  const checker = new DaemonChecker(core, () => 0, { ...none, contexts, failures, containment })
  const [stack, other] = [['first'], ['second']]
  const seen: (Stack | undefined)[] = []
  function* steps(): Generator<void> {
    for (let i = 0; i < 2; i++) {
      seen.push(checker.call.stack)
      yield
    }
    throw new Error('the last step')
  }
  const setCurrent = (current: Stack | undefined): void => {
    checker.call.stack = current
  }
  setCurrent(stack)
  const job = checker.call.continuedBy(steps())
  setCurrent(other)
  job.next()
  assert.equal(checker.call.stack, other, 'is restored after the step')
  setCurrent(undefined)
  job.next()
  assert.throws(() => job.next(), /the last step/)
  assert.equal(checker.call.stack, undefined)
  assert.deepEqual(seen, [stack, stack])
})
