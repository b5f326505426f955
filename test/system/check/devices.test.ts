/*
 * `userdma check` on the devices of providers that set the functions of their objects again, that create objects by
 * functions of their own, and whose requests have numbers of the device (test/programs/check/providers.c).
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript, linesOf } from './checking.ts'

const program = ownProgram('providers')
const srd = join(repoRoot, 'build', 'findings', 'srd', 'cq-overrun')

const source = readFileSync(join(repoRoot, 'test', 'programs', 'check', 'providers.c'), 'utf8')
const overlapLine = source.split('\n').findIndex(line => line.includes('/* OVERLAP */')) + 1

const devices = {
  rxe: [],
  mlx5: ['--device', 'mlx5_0@127.0.0.1,driver=mlx5'],
  efa: ['--device', 'efa_0@127.0.0.1,driver=efa'],
} as const

/** By program and device: the findings; `note` for the two receives on one buffer. */
const rows = [
  ['batch', 'rxe', ['receive-overlap note']],
  ['batch', 'mlx5', ['receive-overlap note']],
  ['batch open', 'rxe', ['batch-misused warning', 'receive-overlap note']],
  ['batch open', 'mlx5', ['batch-misused warning', 'receive-overlap note']],
  // On rxe the function is NULL, so that the program crashes (batches.test.ts).
  ['batch lacking', 'mlx5', ['batch-misused warning', 'receive-overlap note']],
  ['dc', 'mlx5', []],
  ['dc cut', 'mlx5', ['peer-refused error']],
  ['srd', 'efa', ['receive-overlap note']],
  ['direct', 'mlx5', []],
  ['direct write', 'mlx5', ['unknown-rkey error']],
] as const

it('a provider that fails to open a device closes its descriptor itself', { skip: lacking(program) }, async t => {
  const { found, status, stderr } = await checkScript(t, `${program} refused`, [
    ...devices.mlx5,
    ...['--fault', 'call=device.*,errno=ENOMEM'],
  ])
  assert.deepEqual([status, found], [0, []], stderr)
})

it('a full CQ of EFA is told, with its number and size', { skip: lacking(srd) }, async t => {
  const { found } = await checkScript(t, srd, devices.efa)
  assert.match(found.find(({ id }) => id === 'cq-overrun')?.text ?? '', /^event CQ_ERR: CQ \d+ of 1 is full;/)
})

describe('userdma check on each device', { skip: lacking(program) }, () => {
  for (const [argument, device, expected] of rows)
    it(`${argument} on ${device}: ${expected.join(', ') || 'silent'}`, async t => {
      const { found, stderr } = await checkScript(t, `${program} ${argument} >&2`, devices[device])
      const texts = found.map(({ id, severity }) => `${id} ${severity}`)
      assert.deepEqual(texts.sort(), [...expected], stderr)
      for (const { text, details } of found) assert.doesNotMatch([text, ...details].join('\n'), /undefined/)
      const direct = found.find(({ id }) => id === 'unknown-rkey')
      if (direct !== undefined) assert.match(direct.text, /^QP 0x\w+ WRITE block 2: REM_ACCESS_ERR/)
      const refused = found.find(({ id }) => id === 'peer-refused')
      if (refused !== undefined) {
        assert.match(refused.text, /: the DC target has another access key than the request, 0x5$/)
        assert.match(JSON.stringify(refused), /WRITE wr_id 7, 64 bytes/)
        assert.ok(
          refused.details.includes(
            '0x5 has the lower 32 bits of 0x100000005, the access key of the target: it was cut to 32 bits',
          ),
          refused.details.join(' '),
        )
      }
      if (argument === 'batch lacking')
        assert.match(
          found.find(({ id }) => id === 'batch-misused')?.text ?? '',
          /^ibv_wr_rdma_write \(wr_id 7\) on QP 0x\w+, which was created without IBV_QP_EX_WITH_RDMA_WRITE/,
        )
      const overlap = found.find(({ id }) => id === 'receive-overlap')
      if (overlap === undefined) return
      // The program's own wr_id and its stack, whatever the device calls its requests.
      assert.match(overlap.text, /^receive wr_id 77 and receive wr_id 77 of QP/)
      assert.ok(linesOf(overlap).includes(`providers.c:${overlapLine}`), linesOf(overlap).join(' '))
    })
})
