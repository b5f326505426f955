/*
 * Calls with objects that were destroyed (test/programs/check/gone.c), and programs that a signal ends.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { longOnly } from '../../long-run.ts'
import { repoRoot } from '../../paths.ts'
import { findTool } from '../../tools.ts'
import { cleanEnvironment, lacking, ownProgram, runUserdma } from '../programs.ts'
import { checkScript, EX_DATAERR, faulty, linesOf } from './checking.ts'

const program = join(repoRoot, 'build', 'programs', 'gone')

describe('destroyed objects', { skip: lacking(program, ownProgram('own_allocator'), faulty('program-died')) }, () => {
  it('each call that takes a destroyed object is refused and reported, with its line', async t => {
    const { found, stdout, stderr, status } = await checkScript(t, `${program} calls`)
    assert.equal(status, EX_DATAERR, stderr)
    const calls = stdout.split('\n').filter(Boolean)
    assert.ok(calls.length > 100, stdout)
    const reported = found.filter(({ id }) => id === 'use-after-destroy' || id === 'double-destroy')
    const missing = calls.filter(call => {
      const [, name, line, destroys, kind] = /^(\S+) (\d+) ([01]) (.*)$/.exec(call) ?? []
      return !reported.some(
        one =>
          one.id === (destroys === '1' ? 'double-destroy' : 'use-after-destroy') &&
          one.severity === 'error' &&
          one.text.startsWith(`${name} on ${kind}`) &&
          (!(findTool('addr2line') || findTool('llvm-symbolizer')) || linesOf(one).includes(`gone.c:${line}`)),
      )
    })
    assert.deepEqual(missing, [])
    // Of each object that the device has: where it was created.
    for (const kind of ['PD', 'CQ', 'QP', 'MR', 'MW', 'AH', 'SRQ', 'XRCD', 'CM_ID'])
      assert.ok(
        reported.some(({ text, objects }) => text.includes(` on ${kind} `) && objects[0]?.history.length !== 0),
        kind,
      )
    // Of each object: where it was destroyed.
    const withoutDestruction = reported.filter(
      ({ moments, objects }) =>
        ![...moments, ...objects.flatMap(({ history }) => history)].some(
          ({ action, frames }) =>
            /^(destroyed|closed|deallocated|deregistered|freed|acknowledged)/.test(action) && frames.length > 0,
        ),
    )
    assert.deepEqual(
      withoutDestruction.map(({ text }) => text),
      [],
    )
    const others = found.filter(one => !reported.includes(one))
    // Those of the context that is closed with objects.
    assert.deepEqual(others.map(({ id, text }) => `${id} ${text}`).sort(), [
      'leak CQ 1 of context 2 was never destroyed',
      'leak PD 0 of context 2 was never destroyed',
    ])
  })

  it('a call with an object that another thread destroys is refused, but a poll finds nothing', async t => {
    const { found, stderr, status } = await checkScript(t, `${program} concurrent > /dev/null`)
    assert.deepEqual(
      found.map(({ id, text }) => `${id} ${text.replace(/\d+/, 'N')}`),
      ['use-after-destroy ibv_req_notify_cq on CQ N, which another thread destroys at the same time'],
    )
    assert.equal(status, EX_DATAERR, stderr)
  })

  it('an object at an address that another thread still destroys is none, with an allocator in the program', async t => {
    const { found, stderr, status } = await checkScript(t, ownProgram('own_allocator'))
    assert.deepEqual(
      found.map(({ id, text }) => `${id} ${text}`),
      [],
    )
    assert.equal(status, 0, stderr)
  })

  it('programs that create and destroy many objects have no finding, and their memory is bounded', {
    skip: longOnly,
  }, async t => {
    const { found, stdout, stderr, status } = await checkScript(t, `${program} churn`)
    assert.deepEqual(
      found.map(({ id, text }) => `${id} ${text}`),
      [],
    )
    assert.equal(status, 0, stderr)
    const [, kib, addresses] = /^(-?\d+) KiB more after \d+ objects, (.*)$/m.exec(stdout) ?? []
    assert.ok(Number(kib) < 512, stdout)
    assert.equal(addresses, 'addresses are used again')
  })
})

describe('a program that a signal ends', { skip: lacking(program, faulty('program-died')) }, () => {
  it('in a function of verbs: an error, and the status is that of findings', async t => {
    const { found, status } = await checkScript(t, `${faulty('program-died')} >&2; true`)
    const [died] = found.filter(({ id }) => id === 'program-died')
    assert.match(died?.text ?? '', /^died of SIGSEGV in \w+, at an access to 0x12345678\w+, where no memory is$/)
    assert.equal(died?.severity, 'error')
    assert.equal(status, EX_DATAERR)
  })

  it('in an inline function: the report names it and the argument, and the address', async t => {
    const { found } = await checkScript(t, `${program} wild >&2; true`)
    const [died] = found.filter(({ id }) => id === 'program-died')
    assert.equal(died?.text, 'died of SIGSEGV, at an access to 0x123456789000, where no memory is')
    if (findTool('addr2line') || findTool('llvm-symbolizer'))
      assert.deepEqual(died?.details, [
        'ibv_post_send is inline, and reads its argument qp: the pointer is not that of such an object',
      ])
  })

  it('by another signal: the report names it', async t => {
    const { signal, stdout, stderr } = await runUserdma(t, ['check', '--', 'sh', '-c', 'kill -KILL $$'], {
      env: cleanEnvironment(),
    })
    assert.match(stdout + stderr, /^userdma check: no findings.*\n {2}SIGKILL ended the program \(process \d+\)$/m)
    assert.equal(signal, 'SIGKILL')
  })

  it('elsewhere: a warning, and the status is that of the program', async t => {
    const script = `${program} abort >&2; test $? = 134`
    const { found, status } = await checkScript(t, script)
    assert.deepEqual(
      found.filter(({ id }) => id === 'program-died').map(({ severity, text }) => `${severity}: ${text}`),
      ['warning: died of SIGABRT'],
    )
    assert.equal(status, 0)
  })
})
