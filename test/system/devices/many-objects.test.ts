/*
 * Very many objects: rings share mappings of the program, and a guest cannot take everything.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Limits } from '../../../src/drivers/soft/attributes.ts'
import { lacking, NOBODY, noGuests, ownProgram, run, start, startDaemon } from '../programs.ts'

const program = ownProgram('many_objects')

describe('very many objects', { skip: lacking(program) }, () => {
  it('need few mappings in the program, also after they were destroyed and created again', async t => {
    const daemon = await startDaemon(t)
    for (const kind of ['cq', 'srq', 'qp']) {
      const { stdout, stderr } = await run(t, program, [kind, '500'], { env: daemon.env })
      const counts = [...stdout.matchAll(/^500 of 500, (\d+) mappings$/gm)].map(match => Number(match[1]))
      assert.equal(counts.length, 3, `${kind}: ${stdout}${stderr}`)
      assert.ok(Math.max(...counts) < 30, `${kind}: ${stdout}`)
    }
  })

  it('in a multicast group, of a guest, are at most half of what the owner does not keep', {
    skip: noGuests(),
  }, async t => {
    const { members } = Limits.multicast
    const share = Math.floor((members * 7) / 16)
    const daemon = await startDaemon(t, { guest: NOBODY })
    const guest = start(t, program, ['member', `${members}`], {
      env: daemon.env,
      uid: NOBODY,
      gid: NOBODY,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    await guest.printed(new RegExp(`(${share} of ${members}: Cannot allocate memory\\n){3}`))
    const { stdout } = await run(t, program, ['member', `${members}`], { env: daemon.env })
    assert.match(stdout, new RegExp(`^(${members - share} of ${members}: Cannot allocate memory\n){3}$`))
    guest.child.stdin?.end()
    await guest.ended
  })

  it('with large rings, of a guest, leave mappings and addresses to others', { skip: noGuests() }, async t => {
    const daemon = await startDaemon(t, { guest: NOBODY })
    const large = ['qp', '1000', '1000000']
    const guest = start(t, program, large, {
      env: daemon.env,
      uid: NOBODY,
      gid: NOBODY,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    await guest.printed(/(\d+ of 1000: Cannot allocate memory\n){3}/)
    const { stdout } = await run(t, program, ['qp', '20', '1000000'], { env: daemon.env })
    assert.match(stdout, /^(20 of 20, \d+ mappings\n){3}$/)
    guest.child.stdin?.end()
    await guest.ended
  })
})
