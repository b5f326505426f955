/*
 * The survey of what fault rules can act on.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createSurvey, siteOf } from '../../../src/spec/faults/survey.ts'

const program = (pid: number) => ({ pid, program: () => `p${pid}` })

it('a call site is the innermost frame outside the libraries of the verbs API', () => {
  const library = 'ibv_reg_mr (/usr/lib/libibverbs.so.1+0x10)'
  assert.equal(siteOf([library, 'main (/bin/a+0x1)', 'start (/bin/a+0x2)']), siteOf(['main (/bin/a+0x1)', 'other']))
  assert.equal(siteOf([library]), undefined)
  for (let i = 0; i < 64; i++) assert.match(siteOf([`f${i}`]) ?? '', /^[0-9a-f]{8}$/)
})

it('sites are counted, and of the first program with a fault also the objects that it destroys', () => {
  const survey = createSurvey()
  const note = (pid: number, name: string, frame: string) => survey.note('call', 'mr', name, program(pid), [frame])
  note(1, 'mr.create', 'f')
  note(2, 'mr.create', 'f')
  note(1, 'mr.create', 'g')
  note(1, 'mr.destroy', 'f')
  assert.equal(survey.failed, undefined)
  survey.injected(1)
  survey.injected(2)
  note(1, 'mr.destroy', 'f')
  note(2, 'mr.destroy', 'f')
  survey.injected(1)
  assert.deepEqual(
    survey.sites.map(({ name, site, program, count }) => [name, site, program, count]),
    [
      ['mr.create', siteOf(['f']), 'p1', 2],
      ['mr.create', siteOf(['g']), 'p1', 1],
      ['mr.destroy', siteOf(['f']), 'p1', 3],
    ],
  )
  assert.deepEqual(survey.failed, { pid: 1, destroyed: 1 })
})
