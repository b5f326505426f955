/*
 * Calls with arguments out of range give the errno that Linux gives (test/programs/uverbs/arguments.c), also where
 * several arguments are wrong. Sources of the rows: Linux's uverbs_std_types_mr.c (REG_DMABUF_MR: offsets, flags, access,
 * then the driver, whose ib_umem_dmabuf_get looks at the end and at the descriptor), umem.c (ib_umem_get), uverbs_cmd.c
 * (open_xrcd, in which only -1 is no descriptor), cache.c (rdma_get_gid_attr) and efa_verbs.c (efa_alloc_mr);
 * rdma-core's fill_attr_in_fd, which leaves out a channel with the descriptor -1.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { loopbackText } from '../../loopback.ts'
import { lacking, ownProgram, run, startDaemon } from '../programs.ts'

const program = ownProgram('arguments')
const DRIVERS = ['rxe', 'mlx5', 'efa'] as const

/** The errno of each driver; one text: of all. */
type Row = string | readonly [rxe: string, mlx5: string, efa: string]

const ABSENT = 'EOPNOTSUPP'
const BAD: Row = [ABSENT, 'EBADF', 'EBADF']
const INVALID: Row = [ABSENT, 'EINVAL', 'EINVAL']

const rows: Readonly<Record<string, Row>> = {
  'dmabuf: descriptor -1': BAD,
  'dmabuf: descriptor 999': BAD,
  'dmabuf: descriptor -1, length 0': BAD,
  'dmabuf: descriptor -1, offset 1, iova 0': INVALID,
  'dmabuf: descriptor -1, the end overflows': INVALID,
  'dmabuf: descriptor -1, remote write alone': INVALID,
  'dmabuf: descriptor -1, remote atomic alone': INVALID,
  'dmabuf: descriptor -1, remote atomic': [ABSENT, 'EBADF', ABSENT],
  'dmabuf: descriptor -1, on demand': INVALID,
  "dmabuf: the context's descriptor": INVALID,
  'dmabuf: beyond the end': INVALID,
  'dmabuf: right': [ABSENT, 'OK', 'OK'],
  'mr: length 0': 'EINVAL',
  'mr: iova 1': 'EINVAL',
  'mr: remote write alone': 'EINVAL',
  'mr: remote atomic': ['OK', 'OK', ABSENT],
  'mr: remote atomic, iova 1': 'EINVAL',
  'mr: memory windows': ['OK', 'OK', ABSENT],
  'mr: zero-based': ['OK', 'OK', ABSENT],
  'mr: an unknown flag': 'EINVAL',
  'mr: an optional flag': 'OK',
  'mr: 2^31 pages': 'EFAULT',
  'mr: 2^32 pages': 'EINVAL',
  'mr: the end overflows': 'EINVAL',
  'cq: channel -1': 'OK',
  'cq: channel 0': 'EBADF',
  'cq: channel 999': 'EBADF',
  'cq: vector -1': 'EINVAL',
  'cq: 2^30 entries': 'EINVAL',
  'xrcd: descriptor -1': ['OK', 'OK', ABSENT],
  'xrcd: descriptor -1, O_EXCL': ['OK', 'OK', ABSENT],
  'xrcd: descriptor -2': ['EBADF', 'EBADF', ABSENT],
  'xrcd: descriptor 999': ['EBADF', 'EBADF', ABSENT],
  'xrcd: a file without a domain': ['EAGAIN', 'EAGAIN', ABSENT],
  'xrcd: a file, O_CREAT': ['OK', 'OK', ABSENT],
  'xrcd: a file with a domain, O_EXCL': ['EINVAL', 'EINVAL', ABSENT],
  'ah: right': 'OK',
  'ah: without a GID': 'EINVAL',
  'ah: GID index 255': ['ENODATA', 'ENODATA', 'EINVAL'],
}

const LIBRARIES = ['mlx5', 'efa'].map(name => `/etc/libibverbs.d/${name}.driver`)

it('arguments out of range give the errno that Linux gives', { skip: lacking(program, ...LIBRARIES) }, async t => {
  const devices = DRIVERS.map((driver, i) => `${driver}_0@${loopbackText(61 + i)},driver=${driver}`)
  const { env } = await startDaemon(t, { devices })
  for (const [column, driver] of DRIVERS.entries()) {
    const { stdout, stderr } = await run(t, program, [`${driver}_0`], { env })
    const expected = Object.entries(rows).map(
      ([name, row]) => `${name}: ${typeof row === 'string' ? row : row[column]}\n`,
    )
    assert.deepEqual([stdout, stderr], [expected.join(''), ''], driver)
  }
})
