/*
 * Calls with arguments out of range give the errno that Linux gives (test/programs/uverbs/arguments.c), also where
 * several arguments are wrong. Sources of the rows: Linux's uverbs_std_types_mr.c (REG_DMABUF_MR: offsets, flags,
 * access, then the driver, whose ib_umem_dmabuf_get looks at the end and at the descriptor), umem.c (ib_umem_get),
 * uverbs_cmd.c (open_xrcd, in which only -1 is no descriptor; modify_qp, which looks at ports and states first),
 * cache.c (rdma_get_gid_attr), rxe_qp.c (rxe_qp_chk_attr), mlx5's qp.c (mlx5_ib_modify_qp, validate_rd_atomic,
 * mlx5_set_path and mlx5r_ib_rate) and efa_verbs.c (efa_alloc_mr, efa_modify_qp_validate); rdma-core's fill_attr_in_fd,
 * which leaves out a channel with the descriptor -1. libmlx5 makes addresses itself, and refuses a port without an
 * errno: 0.
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

/** RC, which EFA lacks. */
const rc = (rxe: string, mlx5 = rxe): Row => [rxe, mlx5, ABSENT]
/** Attributes that a UD queue pair lacks, and EFA's driver does not know. */
const LACKED: Row = ['EINVAL', 'EINVAL', ABSENT]

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
  'ah: port 0': ['EINVAL', '0', 'EINVAL'],
  'ah: port 2': ['EINVAL', '0', 'EINVAL'],
  'ah: static rate 1': 'OK',
  'ah: service level 16': 'OK',
  'ah: flow label 2^20': 'OK',
  'ah: LID 0xffff': 'OK',
  'rc init: right': rc('OK'),
  'rc init: port 0': rc('EINVAL'),
  'rc init: port 2': rc('EINVAL'),
  // departure: rxe of Linux ignores the index
  'rc init: P_Key index 1': rc('EINVAL'),
  'rc init: state 7': rc('EINVAL'),
  'rc init: with a Q_Key': rc('EINVAL'),
  'rc rtr: right': rc('OK'),
  'rc rtr: path, port 0': rc('EINVAL'),
  'rc rtr: path, port 2': rc('EINVAL'),
  'rc rtr: path without a GID': rc('EINVAL'),
  'rc rtr: path, GID index 255': rc('ENODATA'),
  'rc rtr: path, flow label 2^20': rc('OK'),
  'rc rtr: path, service level 16': rc('OK'),
  'rc rtr: path, static rate 1': rc('OK', 'EINVAL'),
  'rc rtr: path, static rate 2': rc('OK'),
  'rc rtr: path, static rate 22': rc('OK'),
  'rc rtr: path, static rate 23': rc('OK'),
  'rc rtr: path, static rate 24': rc('OK', 'EINVAL'),
  'rc rtr: path, static rate 25': rc('OK'),
  'rc rtr: path, static rate 255': rc('OK', 'EINVAL'),
  // departure: rxe of Linux takes 0
  'rc rtr: MTU 0': rc('EINVAL'),
  'rc rtr: MTU 6': rc('EINVAL'),
  'rc rtr: destination 2^24': rc('OK'),
  'rc rtr: PSN 2^24': rc('OK'),
  'rc rtr: 17 READs': rc('OK', 'EINVAL'),
  // departure: rxe of Linux takes any number
  'rc rtr: 255 READs': rc('EINVAL'),
  // departure: Linux takes 32, of which a packet has the lower five bits
  'rc rtr: RNR timer 32': rc('EINVAL'),
  // departure: EINVAL in Linux, which has no alternate paths on RoCE
  'rc rtr: alternate path': rc(ABSENT),
  'rc rts: right': rc('OK'),
  'rc rts: timeout 31': rc('OK'),
  // departure: mlx5 of Linux takes the lower five bits
  'rc rts: timeout 32': rc('EINVAL'),
  // departure: Linux takes 8; a queue pair of mlx5 gets the lower three bits
  'rc rts: 8 retries': rc('EINVAL'),
  'rc rts: 8 RNR retries': rc('EINVAL'),
  'rc rts: 17 READs': rc('OK', 'EINVAL'),
  'rc rts: 255 READs': rc('EINVAL'),
  'rc rts: PSN 2^24': rc('OK'),
  // departure: EINVAL on mlx5 of Linux, whose raw packets have limits
  'rc rts: with a rate limit': rc(ABSENT),
  'ud init: right': 'OK',
  'ud init: port 0': 'EINVAL',
  'ud init: port 2': 'EINVAL',
  // departure: rxe of Linux ignores the index
  'ud init: P_Key index 1': LACKED,
  'ud init: with access flags': LACKED,
  'ud rtr: right': 'OK',
  'ud rtr: with a path': LACKED,
  'ud rtr: with an MTU': LACKED,
  'ud rts: right': 'OK',
  'ud rts: PSN 2^24': 'OK',
  'ud rts: with a timeout': LACKED,
  'ud rts: with RNR retries': 'EINVAL',
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
