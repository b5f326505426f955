/*
 * What `userdma check` says of calls that end for another reason than the program thinks
 * (test/programs/check/given_up.c): signals, after which it gives up, descriptors that ran out, and events of rdma_cm
 * that are others than it thinks.
 */
import assert from 'node:assert/strict'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { lacking, ownProgram, suiteScope, temporaryFolder } from '../programs.ts'
import { checkScript, type FindingJson, isOf } from './checking.ts'

const program = ownProgram('given_up')
const INTERRUPTED = / was interrupted by a signal$/
const OUT = /^ibv_create_comp_channel: EMFILE: the program has as many descriptors open as it may \(RLIMIT_NOFILE\)$/

describe('calls that end for another reason', { skip: lacking(program) }, () => {
  const suite = suiteScope()
  for (const [title, options] of [
    ['rxe', []],
    ['mlx5', ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']],
  ] as const)
    describe(title, () => {
      let found: readonly FindingJson[] = []
      before(async () => {
        const folder = temporaryFolder(suite)
        const names = ['event', 'poll', 'repeat', 'descriptors', 'mixed']
        for (const name of names) symlinkSync(program, join(folder, name))
        found = (await checkScript(suite, names.map(name => `${folder}/${name} ${name} >&2;`).join(' '), options)).found
      })

      for (const [name, interrupted] of [
        ['event', ['ibv_get_cq_event was interrupted by a signal']],
        ['poll', ['poll was interrupted by a signal']],
        ['repeat', []],
      ] as const)
        it(`${name}: the story has ${interrupted.length} calls that a signal has ended`, () => {
          const failed = found.filter(isOf(name)).find(({ id }) => id === 'no-peer-qp')
          assert.deepEqual(
            failed?.story?.map(({ text }) => text).filter(text => INTERRUPTED.test(text)),
            interrupted,
          )
        })

      it('a request of another client before ESTABLISHED of the identifier that has accepted', () => {
        const [refused] = found.filter(isOf('mixed'))
        assert.match(
          refused?.text ?? '',
          /^rdma_create_qp on (CM_ID \d+): EINVAL: the identifier has a queue pair already$/,
        )
        assert.match(
          refused?.details.join() ?? '',
          /^CONNECT_REQUEST of another client was read after CM_ID \d+ had accepted, before its ESTABLISHED$/,
        )
      })

      it('a channel for which no descriptor is left', () => {
        const [refused] = found.filter(isOf('descriptors'))
        assert.match(refused?.text ?? '', OUT)
      })
    })
})
