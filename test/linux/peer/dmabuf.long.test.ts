/*
 * Regions of real dma-bufs, in a guest whose kernel has /dev/udmabuf and /dev/dma_heap. The guest has no Node.js, so
 * userdma is there as its tarball.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { assertGoodRegions } from '../../system/devices/dmabuf.ts'
import { lacking, ownProgram, suiteScope } from '../../system/programs.ts'
import { type Guest, installUserdma, startGuest, whyNoGuest } from './guest.ts'

/** The guest's processor is emulated. */
const LIMIT_SECONDS = 300
const program = ownProgram('dmabuf')

describe('a dma-buf of the kernel', { skip: lacking(program) || whyNoGuest() }, () => {
  const scope = suiteScope()
  let guest: Guest
  let userdma = ''
  before(async () => {
    guest = await startGuest(scope, 'Linux 6.12')
    userdma = await installUserdma(scope, guest)
    const devices = '--device mlx5_0@127.0.0.1,driver=mlx5 --device efa0@127.0.0.2,driver=efa'
    const start = `mkdir -m 700 /tmp/u; ${userdma} daemon --detach --socket /tmp/u/s --link memory ${devices}`
    const { status, stderr } = await guest.start(scope, 'sh', ['-c', start], LIMIT_SECONDS).ended
    assert.equal(status, 0, stderr)
  })

  for (const [name, service, kind] of [
    ['mlx5_0', 'rc', 'udmabuf'],
    ['mlx5_0', 'rc', 'heap'],
    ['efa0', 'ud', 'udmabuf'],
  ] as const)
    it(`is registered, read and written (${kind}, ${name})`, async () => {
      const command = ['run', '--socket', '/tmp/u/s', '--', guest.share(program), name, service, kind]
      const { status, stdout, stderr } = await guest.start(scope, userdma, command, LIMIT_SECONDS).ended
      assert.equal(status, 0, stderr)
      assertGoodRegions(stdout, service, kind)
    })
})
