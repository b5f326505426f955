/*
 * Regions of memory behind a descriptor (src/daemon/memory/file-space.ts), on the devices whose providers have them.
 * librxe has no ibv_reg_dmabuf_mr. test/linux/peer/dmabuf.long.test.ts has dma-bufs.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isEmpty, lacking, ownProgram, run, startDaemon } from '../programs.ts'
import { assertGoodRegions } from './dmabuf.ts'

const program = ownProgram('dmabuf')

describe('memory behind a descriptor', { skip: lacking(program, '/etc/libibverbs.d/mlx5.driver') }, () => {
  for (const [name, service, kind] of [
    ['mlx5_0', 'rc', 'memfd'],
    ['mlx5_0', 'rc', 'huge'],
    ['efa0', 'ud', 'memfd'],
  ] as const)
    it(`is registered, read and written (${kind}, ${name})`, async t => {
      const device = name === 'mlx5_0' ? 'mlx5_0@127.0.0.1,driver=mlx5' : 'efa0@127.0.0.1,driver=efa'
      const daemon = await startDaemon(t, { devices: [device] })
      const { status, stdout, stderr } = await run(t, program, [name, service, kind], { env: daemon.env })
      assert.equal(status, 0, stderr)
      if (stdout === 'absent\n') return t.skip(`the system has no memory of kind ${kind}`)
      assertGoodRegions(stdout, service, kind)
      await daemon.settled(isEmpty)
    })
})
