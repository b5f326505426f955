/*
 * A device that dies and tells nothing (`fatal=silent`, `fatal=half`): a program that waits for a completion gets a
 * report that names the device and the rule.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { lacking } from '../programs.ts'
import { checkScript, serverAndClient } from './checking.ts'

const EFA = ['--device', 'efa_0@127.0.0.1,driver=efa']
const MLX5 = ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']

describe('a device that dies silently', { skip: lacking('ibv_rc_pingpong') }, () => {
  for (const death of ['silent', 'half'])
    it(`with fatal=${death} is named as what a program waits for`, async t => {
      const look = async (device: readonly string[]): Promise<void> => {
        const script = await serverAndClient(
          device === EFA ? 'ibv_ud_pingpong -g 0 -n 20' : 'ibv_rc_pingpong -g 1 -n 20',
        )
        const fault = ['--fault', `completion=SEND,nth=3,fatal=${death}`]
        const { found } = await checkScript(t, script, ['--hang', '1', '--time-limit', '4', ...fault, ...device])
        const waits = found.filter(({ id, severity }) => id === 'idle-queues' && severity === 'warning')
        assert.notEqual(waits.length, 0)
        for (const { text, advice } of waits) {
          assert.match(
            text,
            /waits for a completion of \w+, which writes none any more.* fault rule 1 \(completion=SEND,nth=3,fatal=/,
          )
          assert.match(advice ?? '', /limit the time/)
        }
        assert.deepEqual(
          found.filter(({ severity }) => severity === 'error'),
          [],
          'no request fails',
        )
      }
      await Promise.all((death === 'silent' ? [[], MLX5, EFA] : [[], EFA]).map(look))
    })

  it('is told of no program that ends before', async t => {
    const script = await serverAndClient('ibv_rc_pingpong -g 1 -n 20')
    const { found, status } = await checkScript(t, script, ['--fault', 'completion=SEND,nth=4711,fatal=silent'])
    assert.deepEqual([found.filter(({ severity }) => severity !== 'note'), status], [[], 0])
  })
})
