/*
 * What test/programs/memory/dmabuf.c prints.
 */
import assert from 'node:assert/strict'

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
  ['one byte too many', 'EINVAL'],
  ['from the end on', 'EINVAL'],
  ['2^63 bytes', 'EINVAL'],
  ['2^64 - 1 bytes', 'EINVAL'],
  ['an offset that wraps around', 'EINVAL'],
  ['an offset of 2^53', 'EINVAL'],
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
  ['descriptor -1', 'EBADF'],
] as const

/** Where a dma-buf differs: its descriptor cannot be opened once more. */
const OF_DMABUF: Readonly<Record<string, string>> = {
  'local write of a read-only descriptor': 'EINVAL',
  'remote read of a read-only descriptor': 'EINVAL',
  'a descriptor that appends': 'EINVAL',
}

const TRUNCATED = ['WRITE', 'READ'].map(name => `${name} behind the end of a shortened file: remote operation error`)

/** `kind`: of the memory. */
export const assertGoodRegions = (stdout: string, service: keyof typeof TRAFFIC, kind: string): void => {
  const lines = stdout.trimEnd().split('\n')
  const many = lines.findIndex(line => line.startsWith('many'))
  // the shares of descriptors, or of mappings
  assert.match(lines[many] ?? stdout, /^many: (OK|EMFILE|ENOMEM), and after they are gone: OK$/)
  const isFile = kind === 'memfd' || kind === 'huge'
  const refusals = REFUSALS.map(([name, result]) => `${name}: ${(isFile ? undefined : OF_DMABUF[name]) ?? result}`)
  const hasTruncated = isFile && service === 'rc'
  assert.deepEqual(lines.toSpliced(many, 1), [...TRAFFIC[service], ...refusals, ...(hasTruncated ? TRUNCATED : [])])
}
