/*
 * Regions of memory behind a descriptor (src/daemon/memory/file-space.ts), on the devices whose providers have them. librxe
 * has no ibv_reg_dmabuf_mr.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isEmpty, lacking, ownProgram, run, startDaemon } from '../programs.ts'

const program = ownProgram('dmabuf')

const TRAFFIC = {
  rc: [
    'WRITE: success, 7',
    'READ: success, 9',
    'atomic: success, 9, then 10',
    'SEND from the region to its end: success, 10',
    'READ beyond the region: remote access error',
  ],
  ud: ['SEND and receive: success, success, 5'],
} as const

const REFUSALS = [
  ['length 0', 'EINVAL'],
  ['one byte too many', 'EFAULT'],
  ['from the end on', 'EFAULT'],
  ['2^63 bytes', 'EFAULT'],
  ['2^64 - 1 bytes', 'EINVAL'],
  ['an offset that wraps around', 'EINVAL'],
  ['an offset of 2^53', 'EFAULT'],
  ['an iova of another offset in its page', 'EINVAL'],
  ['an iova that wraps around', 'EINVAL'],
  ['remote write without local write', 'EINVAL'],
  ['on-demand paging', 'EINVAL'],
  ['local write of a read-only descriptor', 'EFAULT'],
  ['remote read of a read-only descriptor', 'OK'],
  ['a descriptor that appends', 'EINVAL'],
  ['a pipe', 'EINVAL'],
  ['a socket', 'EINVAL'],
  ['an eventfd', 'EINVAL'],
  ['a folder', 'EINVAL'],
  ['a file of a file system', 'EINVAL'],
  ['a device', 'EINVAL'],
  ['no descriptor', 'EBADF'],
  ['descriptor -1', 'EINVAL'],
].map(([name, result]) => `${name}: ${result}`)

const TRUNCATED = ['WRITE', 'READ'].map(name => `${name} behind the end of a shortened file: remote operation error`)

describe('memory behind a descriptor', { skip: lacking(program, '/etc/libibverbs.d/mlx5.driver') }, () => {
  for (const [name, service, kind] of [
    ['mlx5_0', 'rc', 'memfd'],
    ['mlx5_0', 'rc', 'huge'],
    ['mlx5_0', 'rc', 'udmabuf'],
    ['efa0', 'ud', 'memfd'],
  ] as const)
    it(`is registered, read and written (${kind}, ${name})`, async t => {
      const device = name === 'mlx5_0' ? 'mlx5_0@127.0.0.1,driver=mlx5' : 'efa0@127.0.0.1,driver=efa'
      const daemon = await startDaemon(t, { devices: [device] })
      const { status, stdout, stderr } = await run(t, program, [name, service, kind], { env: daemon.env })
      assert.equal(status, 0, stderr)
      if (stdout === 'absent\n') return t.skip(`the system has none of kind ${kind}`)
      const lines = stdout.trimEnd().split('\n')
      const many = lines.findIndex(line => line.startsWith('many'))
      // the shares of descriptors, or of mappings
      assert.match(lines[many]!, /^many: (OK|EMFILE|ENOMEM), and after they are gone: OK$/)
      const isTruncated = kind === 'memfd' && service === 'rc'
      assert.deepEqual(lines.toSpliced(many, 1), [...TRAFFIC[service], ...REFUSALS, ...(isTruncated ? TRUNCATED : [])])
      await daemon.settled(isEmpty)
    })
})
