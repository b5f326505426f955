/*
 * `userdma check` on registered memory that is unmapped (test/programs/check/unmaps.c): the stack of the call.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('unmaps')

describe('registered memory that is unmapped', { skip: lacking(program, 'addr2line') }, () => {
  it('has the stack of the call, and none by a child of fork', async t => {
    const cases = ['munmap', 'mremap', 'fixed', 'free', 'realloc', 'child']
    const script = cases.map(one => `${program} ${one}`).join(' && ')
    const { found, status, stderr } = await checkScript(t, script)
    const unmapped = found.filter(({ id }) => id === 'region-unmapped')
    const callers = unmapped.map(({ objects }) => {
      const moment = objects[0]?.history.find(({ action }) => action === 'unmapped')
      return moment?.frames.map(one => one.function).find(name => name.startsWith('by_'))
    })
    assert.deepEqual(callers, ['by_munmap', 'by_mremap', 'by_fixed', 'by_free', 'by_realloc'])
    assert.equal(status, 0, stderr)
  })
})
