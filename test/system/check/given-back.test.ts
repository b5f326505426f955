/*
 * `userdma check` on accesses to memory that its program gave back while it was registered (spec/given-back.ts):
 * each way of giving back with each access, on each device. The finding has the stacks of the access and of the
 * program's fault.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { type AccessName, accesses, toldOf, type WayName, ways } from '../../spec/given-back.ts'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript, type FindingJson } from './checking.ts'

const [program, srd] = [ownProgram('given_back'), ownProgram('given_back_srd')]
const wayNames = Object.keys(ways) as WayName[]
const accessNames = Object.keys(accesses) as AccessName[]
const all = wayNames.flatMap(way => accessNames.map(access => ({ way, access, name: `${way}/${access}` })))

/** In `npm test`: each way, each access, and what differs. */
const cases = casesOf(all, ({ way, access }) => way === 'free' || access === 'send' || access === 'peer-read')

/** EFA has no atomics, and the libefa of rdma-core 44 posts no WRITE. */
const isOfEfa = ({ access }: { readonly access: AccessName }): boolean =>
  access !== 'peer-write' && access !== 'peer-atomic'

const functionsOf = ({ moments, objects }: FindingJson): readonly string[] =>
  [...moments, ...objects.flatMap(({ history }) => history)].flatMap(({ frames }) =>
    frames.map(frame => frame.function),
  )

const devices = [
  ['rxe', [], program, cases],
  ['mlx5', ['--device', 'mlx5_0@127.0.0.1,driver=mlx5'], program, cases],
  ['efa', ['--device', 'efa_0@127.0.0.1,driver=efa'], srd, cases.filter(isOfEfa)],
] as const

describe('accesses to memory that was given back', { skip: lacking(program, srd, 'addr2line') }, () => {
  for (const [device, options, path, own] of devices)
    it(`are told on ${device}`, async t => {
      const script = own.map(({ name }) => `${path} ${name} >&2;`).join(' ')
      const { found } = await checkScript(t, `${script} true`, options)
      const told = own.map(({ way, access, name }) => {
        const expected = toldOf(way, access)
        const ofProgram = found.filter(one => one.program.command === name.slice(0, 15))
        const finding = ofProgram.find(({ id, severity }) => id === expected.finding && severity === expected.severity)
        if (finding === undefined) return `${name}: ${ofProgram.map(one => `${one.severity} ${one.id}`).join(', ')}`
        const hasFault = functionsOf(finding).includes(ways[way].function)
        return hasFault ? name : `${name}: no stack has ${ways[way].function}: ${functionsOf(finding).join(' ')}`
      })
      assert.deepEqual(
        told,
        own.map(({ name }) => name),
      )
    })
})
