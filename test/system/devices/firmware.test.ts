/*
 * Firmware commands (DEVX) through the distribution's libmlx5: what they make works, `trace` shows their fields, and a
 * program that ends in the middle of them leaves nothing.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { inLongRun } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { isEmpty, lacking, NOBODY, noGuests, ownProgram, run, runUserdma, start, startDaemon } from '../programs.ts'

const LIBRARY = '/etc/libibverbs.d/mlx5.driver'
const DEVICE = `mlx5_0@${loopbackText(34)},driver=mlx5`
const firmware = ownProgram('firmware')
const victim = ownProgram('firmware_queues')
const attacker = ownProgram('firmware_attack')

const OUTPUT = [
  'log_max_msg 30',
  'keys of memory and of other keys',
  'answer 77: status 0, length 8',
  'CREATE_XRQ: status 2, syndrome 0x100001',
  'QUERY_MKEY of another object: EINVAL',
  'deregistration in use: EBUSY',
  'null region: yes',
]

describe('firmware commands', { skip: lacking(firmware, LIBRARY) }, () => {
  for (const end of ['destroy', 'exit', 'kill'])
    it(`make keys, and leave nothing at the end (${end})`, async t => {
      const daemon = await startDaemon(t, { devices: [DEVICE] })
      const { status, stdout, stderr } = await run(t, firmware, ['mlx5_0', end], { env: daemon.env })
      assert.deepEqual(stdout.trimEnd().split('\n'), OUTPUT, stderr)
      assert.equal(status, end === 'kill' ? null : 0, stderr)
      await daemon.settled(isEmpty)
    })

  it('reach nothing of another user', { skip: noGuests() || lacking(victim, attacker) }, async t => {
    const daemon = await startDaemon(t, { devices: [DEVICE], guest: NOBODY })
    const stdio = ['pipe', 'pipe', 'pipe'] as const
    const attacked = start(t, victim, ['mlx5_0', 'attacked'], { env: daemon.env, stdio: [...stdio] })
    const [line] = await attacked.printed(/^\d.*\n/)
    const args = ['mlx5_0', `${inLongRun(5000, 200)}`, ...line.trim().split(' ')]
    const options = { env: daemon.env, stdio: [...stdio], uid: NOBODY, gid: NOBODY }
    const attacking = start(t, attacker, args, options)
    await attacking.printed(/^refused\n/)
    // all that the first user has made works, while the attacker has its objects
    attacked.child.stdin?.end()
    const { status, stdout, stderr } = await attacked.ended
    assert.deepEqual([status, stdout, stderr], [0, `${line}good\n`, ''])
    attacking.child.stdin?.end()
    const after = await attacking.ended
    assert.deepEqual([after.status, after.stdout, after.stderr], [0, 'refused\nno event\n', ''])
    await daemon.settled(isEmpty)
  })

  it('are traced by name and field, with the reason of a refusal', async t => {
    const args = ['trace', '--private', '--device', DEVICE, '--', firmware, 'mlx5_0', 'destroy']
    const { stderr, stdout } = await runUserdma(t, args)
    const lines = `${stdout}${stderr}`
    for (const line of [
      /devx\.command\(QUERY_HCA_CAP \{op_mod 1\}\) = 0 \{output \{capability \{.*log_max_srq_sz \d+/,
      /devx_obj\.create\(ALLOC_PD \{\}\) = 0 \{object \d+, output \{pd 0x/,
      /devx_obj\.create\(CREATE_MKEY \{memory_key_mkey_entry \{a 1, rw 1, .*klm_pas_mtt .* \{object \d+, output \{mkey_index 0x/,
      /devx\.queryAsync\(QUERY_MKEY \{mkey_index 0x.*, channel fd \d+, outputBytes 304, wrId 77\) = 0/,
      /devx_obj\.create\(CREATE_XRQ \{\}\) = -1 EREMOTEIO \(.*BAD_OP_ERR \(0x2\), syndrome 0x100001/,
    ])
      assert.match(lines, line)
  })
})
