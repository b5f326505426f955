/*
 * The survey of what fault rules can act on.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createProgramFaults } from '../../src/faults/program-faults.ts'
import { createSurvey, siteOf } from '../../src/faults/survey.ts'

const surveyAt = (now = () => 0) => createSurvey(createProgramFaults(), now)
const program = (pid: number) => ({ pid, program: () => `p${pid}`, device: 'rxe0' })

it('a call site is the innermost frame outside the libraries of the verbs API', () => {
  const library = 'ibv_reg_mr (/usr/lib/libibverbs.so.1+0x10)'
  assert.equal(siteOf([library, 'main (/bin/a+0x1)', 'start (/bin/a+0x2)']), siteOf(['main (/bin/a+0x1)', 'other']))
  assert.equal(siteOf([library]), undefined)
  for (let i = 0; i < 64; i++) assert.match(siteOf([`f${i}`]) ?? '', /^[0-9a-f]{8}$/)
})

it('sites are counted, and of the first program with a fault also the objects that it destroys', () => {
  const survey = surveyAt()
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
    survey.sites.map(({ name, site, process, first, count }) => [name, site, process, first, count]),
    [
      ['mr.create', siteOf(['f']), 1, 1, 1],
      ['mr.create', siteOf(['f']), 2, 1, 1],
      ['mr.create', siteOf(['g']), 1, 1, 1],
      ['mr.destroy', siteOf(['f']), 1, 1, 2],
      ['mr.destroy', siteOf(['f']), 2, 1, 1],
    ],
  )
  assert.deepEqual(survey.failed, { pid: 1, destroyed: 1 })
})

it('what libraries destroy for themselves does not count: in the call that fails, and at exit', () => {
  const library = '/lib/librdmacm.so.1+0x8a1d rdma_destroy_id'
  const destroyedIn = (...frames: readonly string[]): number => {
    const survey = surveyAt()
    survey.injected(1, ['/lib/librdmacm.so.1+0x10 rdma_create_ep', '/bin/p+0x7', '/bin/p+0x1'])
    survey.note('call', 'cm_id', 'cm_id.destroy', program(1), [library, ...frames])
    return survey.failed!.destroyed
  }
  assert.equal(destroyedIn('/bin/p+0x7', '/bin/p+0x1'), 0)
  assert.equal(destroyedIn('/bin/p+0x9', '/bin/p+0x1'), 1)
  assert.equal(destroyedIn('/lib64/ld-linux-x86-64.so.2+0x11fa', '/lib/libc.so.6+0x3f exit', '/bin/p+0x9'), 0)
})

it('the same site in another phase of the process is another one, with the number of its first', () => {
  const faults = createProgramFaults()
  const survey = createSurvey(faults, () => 0)
  const subject = { device: 'd', pid: 1, program: () => 'p' }
  const note = (target: 'call' | 'completion', name: string) => {
    survey.note(target, 'rc_qp', name, subject, ['f'])
    if (target === 'call') faults.onCall(subject, name)
    else faults.onCompletion(subject, 'rc_qp', 1, name)
  }
  for (const name of ['mr.create', 'rc_qp.create', 'mr.create', 'mr.create', 'rc_qp.modify']) note('call', name)
  note('completion', 'SEND')
  for (const name of ['mr.create', 'rc_qp.destroy', 'mr.create', 'rc_qp.create', 'mr.create']) note('call', name)
  assert.deepEqual(
    survey.sites.filter(({ name }) => name === 'mr.create').map(({ phase, first, count }) => [phase, first, count]),
    [
      ['begins', 1, 1],
      ['has a queue pair', 2, 3],
      ['transfers', 4, 1],
      ['closes', 5, 1],
    ],
  )
})

it('knows when a failure was injected, and when the next completion came after a failed one', () => {
  let time = 100
  const survey = surveyAt(() => time)
  const completes = () => survey.note('completion', 'rc_qp', 'WRITE', program(1), ['f'])
  completes()
  time = 130
  survey.injected(1)
  survey.told('a', true)
  survey.told('a', true)
  time = 170
  completes()
  time = 200
  completes()
  survey.retries(7)
  survey.retries(3)
  assert.deepEqual(survey.facts, { told: ['a'], retries: 7, relapses: [], injectedAt: 30, recoveredAt: 70 })
})
