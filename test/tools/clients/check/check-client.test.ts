/*
 * The checker of a core with a soft device.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { renameDevice, unregister } from '../../../../src/core/devices/registry.ts'
import type { Finding } from '../../../../src/spec/check/finding.ts'
import { type BufferCheck, SCRATCH_BYTES } from '../../../../src/spec/check/requests.ts'
import { createChecker } from '../../../../src/tools/clients/check/check-client.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import { machine } from '../../../drivers/rxe/machine.ts'
import { pairOn, sgeOf } from '../../../drivers/rxe/pair.ts'
import { Flag, postSend, Wr } from '../../../drivers/rxe/provider.ts'

/** A pair of programs, and their findings. */
const checkedPair = (buffers?: BufferCheck) => {
  const m = machine()
  const found: Finding[] = []
  createChecker(m.core, finding => found.push(finding), {
    scratch: plainArena(SCRATCH_BYTES),
    isChecked: () => true,
    program: () => undefined,
    callStack: () => () => [],
    postStack: () => [],
    ...(buffers && { buffers }),
  })
  return { found, ...pairOn(m) }
}

/** Ids of the findings about an outstanding WRITE of 16 KiB when the program changes byte `changed`. */
const findingsOf = (buffers: BufferCheck, changed: number): string[] => {
  const { m, a, b, found } = checkedPair(buffers)
  const remote = { remote: b.mr.address, rkey: b.mr.rkey }
  postSend(a.qp.send, { opcode: Wr.WRITE, id: 1n, flags: Flag.SIGNALED, sges: [sgeOf(a.mr, 0, 16_384)], ...remote })
  m.devices[0]!.poll(m.now)
  a.mr.bytes[changed]! ^= 1
  m.settle()
  m.tick()
  return found.map(({ id }) => id)
}

it('buffers `all` finds changes of bytes that are not in the sample of a long message', () => {
  const changes = Array.from({ length: 16 }, (_, i) => i * 1000 + 500)
  const foundBy = (buffers: BufferCheck): number =>
    changes.filter(changed => findingsOf(buffers, changed).includes('send-buffer-changed')).length
  assert.ok(foundBy('sampled') < changes.length)
  assert.equal(foundBy('all'), changes.length)
})

it('findings at the removal of a device name the device', async () => {
  const { m, a, b, found } = checkedPair()
  const remote = { remote: b.mr.address, rkey: b.mr.rkey }
  // Two requests: one unpolled completion is no finding, since the library leaves one until the next poll.
  for (const id of [1n, 2n])
    postSend(a.qp.send, { opcode: Wr.WRITE, id, flags: Flag.SIGNALED, sges: [sgeOf(a.mr, 0, 64)], ...remote })
  m.settle()
  const device = m.core.devices.get('rxe0')!
  renameDevice(device, 'renamed')
  await new Promise<void>(resolve => unregister(device, resolve))
  assert.deepEqual(
    found.map(({ id, device }) => [id, device]),
    [['completions-unpolled', 'renamed']],
  )
})
