/*
 * `userdma check --who`: all accesses to the bytes of a region, in order, live and from a recording
 * (test/programs/check/touches.c).
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { lacking, ownProgram, runUserdma, type Scope, temporaryFolder } from '../programs.ts'

const program = ownProgram('touches')
const RANGE = 'mr=2+0+64'

interface Access {
  readonly time: number
  readonly event: string
  readonly text: string
  readonly stack: readonly { readonly file?: string; readonly function: string }[]
}

/** The accesses that `check --json` tells. */
const accesses = async (scope: Scope, words: readonly string[]): Promise<readonly Access[]> => {
  const { status, stderr } = await runUserdma(scope, ['check', '--json', ...words])
  assert.equal(status, 0, stderr)
  const told = stderr.split('\n').find(line => line.startsWith('{"who"'))
  return (JSON.parse(told ?? '') as { readonly accesses: readonly Access[] }).accesses
}

const textsOf = (told: readonly Access[]): string[] =>
  told.filter(({ event }) => event !== 'polled').map(({ text }) => text.replace(/QP 0x.*?\)/, 'QP'))

describe('userdma check --who', { skip: lacking(program) }, () => {
  for (const [device, words] of [
    ['rxe', []],
    ['rxe, by packets', ['--path', 'packets']],
    ['mlx5', ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']],
  ] as const)
    it(`tells registrations, posts, accesses of both ends and changes by the program: ${device}`, async t => {
      const told = await accesses(t, ['--who', RANGE, ...words, '--', program])
      assert.deepEqual(textsOf(told), [
        'registered: 64 bytes at +0',
        'posted receive wr_id 6, which writes: 64 bytes at +0',
        'receive wr_id 6 has taken SEND wr_id 7 of QP: 64 bytes at +0',
        'changed by the program since the last line: 64 bytes at +0',
        'posted WRITE wr_id 8, which writes at the peer: 64 bytes at +0',
        'WRITE wr_id 8 has written: 64 bytes at +0',
        'posted READ wr_id 9, which reads at the peer: 64 bytes at +0',
        'READ wr_id 9 has read: 64 bytes at +0',
        'posted ATOMIC_FETCH_AND_ADD wr_id 10, which changes at the peer: 8 bytes at +8',
        'ATOMIC_FETCH_AND_ADD wr_id 10 has changed: 8 bytes at +8',
        'deregistered: 64 bytes at +0',
      ])
      const post = told.find(({ event, text }) => event === 'posted' && text.includes('WRITE'))
      assert.ok(post?.stack.some(({ file = '' }) => file.endsWith('touches.c')))
    })

  it('tells of bytes by the name that the program has given them, also of a recording', async t => {
    const file = join(temporaryFolder(t), 'run.udr')
    const words = ['--record', file, '--record-depth', 'check', '--', program]
    const live = await accesses(t, ['--who', 'target', ...words])
    assert.equal(live.length, (await accesses(t, [file, '--who', RANGE])).length)
    assert.deepEqual(await accesses(t, [file, '--who', 'target']), live)
    const part = textsOf(await accesses(t, [file, '--who', 'target+0+8']))
    assert.ok(part.includes('WRITE wr_id 8 has written: 8 bytes at +0'), part.join('\n'))
    assert.ok(!part.some(text => text.includes('FETCH_AND_ADD')), part.join('\n'))
  })

  it('tells of a recording what it told of the run, and of another range as much as it has', async t => {
    const file = join(temporaryFolder(t), 'run.udr')
    const live = await accesses(t, ['--who', RANGE, '--record', file, '--record-depth', 'check', '--', program])
    assert.deepEqual(await accesses(t, [file, '--who', RANGE]), live)
    const of = textsOf(await accesses(t, [file, '--who', 'wr_id=8']))
    assert.ok(
      of.some(text => /^SEND wr_id 7 has read: 64 bytes at \+0 of MR 0x/.test(text)),
      of.join('\n'),
    )
    assert.ok(
      of.some(text => /^WRITE wr_id 8 has written: 64 bytes at \+0 of MR 0x/.test(text)),
      of.join('\n'),
    )
  })

  it('says when no memory has the bytes, and what a range is', async t => {
    const nobody = await runUserdma(t, ['check', '--who', '0x10+4', '--', program])
    assert.match(nobody.stderr, /^who touched 0x10\+4: nobody: /m)
    const { status, stderr } = await runUserdma(t, ['check', '--who', 'mr=0', '--', program])
    assert.equal(status, 2)
    assert.match(stderr, /--who "mr=0": give 0xADDRESS\+LENGTH, mr=NUMBER, /)
  })
})
