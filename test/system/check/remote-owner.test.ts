/*
 * Memory that its program gave back while it was registered, and that a peer of another daemon accesses: the daemon of
 * the memory's program tells it, though it does not see the request (test/programs/check/remote_owner.c).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { freePort, lacking, ownProgram, runUserdma } from '../programs.ts'
import { checkScript, linesOf } from './checking.ts'

const program = ownProgram('remote_owner')

describe('memory that a peer of another daemon accesses', { skip: lacking(program) }, () => {
  for (const access of ['read', 'write'])
    for (const driver of ['rxe', 'mlx5'])
      it(`${access} on ${driver}`, async t => {
        const port = await freePort()
        const on = (address: string): string[] => [
          '--link',
          'udp',
          '--device',
          `${driver}_0@${address},driver=${driver}`,
        ]
        const [{ found, stderr }, peer] = await Promise.all([
          checkScript(t, `${program} owner ${port} ${access} >&2`, on('127.0.0.71')),
          runUserdma(t, ['run', '--private', ...on('127.0.0.72'), '--', program, 'peer', `${port}`, access]),
        ])
        assert.match(peer.stdout, /^success$/m, peer.stderr)
        const [told, ...others] = found.filter(({ severity }) => severity !== 'note')
        assert.equal(told?.id, 'memory-gone', stderr)
        assert.match(
          told.text,
          new RegExp(
            `^a ${access.toUpperCase()} of the peer of QP 0x\\w+, of another daemon or machine, accesses \\d+ bytes at 0x\\w+ of MR .*, which the program had freed$`,
          ),
        )
        assert.ok(linesOf(told).some(line => line.startsWith('remote_owner.c:')))
        assert.deepEqual(others, [])
      })
})
