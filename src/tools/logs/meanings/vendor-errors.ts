/*
 * What `vendor_err` of a failed completion says, by adapter. Makers of mlx4 and mlx5 publish nothing: these rows are
 * from public reports whose fault was found, and the number of reports is why they are as sure as they are. The status
 * says more than the vendor error in every case; a row is of use where a status has several faults.
 */

import { type CauseName, causeOfCode, causes } from '../../../spec/check/causes.ts'
import type { StatusName } from '../../../spec/check/statuses.ts'
import { EfaStatus } from '../../../spec/drivers/efa-queues.ts'
import type { Family } from '../shape.ts'
import type { Meaning } from './certainty.ts'

const REPORTS = 'public reports'

const mellanox = (statusNames: readonly StatusName[], text: string, certainty: Meaning['certainty']): VendorRow => ({
  statuses: statusNames,
  text,
  certainty,
  source: REPORTS,
})

interface VendorRow extends Meaning {
  /** With which it comes. */
  readonly statuses?: readonly StatusName[]
}

const GATHER = 'the adapter could not read the buffer that it was to send'

/** ConnectX with libmlx5 or libmlx4. */
const connectX: Readonly<Record<number, VendorRow>> = {
  37: mellanox(['MW_BIND_ERR'], 'a bind of a memory window or a UMR failed', 'guess'),
  50: mellanox(['LOC_PROT_ERR'], 'received data could not be written: its lkey, bounds or protection domain', 'likely'),
  51: mellanox(['LOC_PROT_ERR'], 'the response to a READ could not be written into the local buffer', 'guess'),
  52: mellanox(['LOC_LEN_ERR'], 'the receive is shorter than the message', 'guess'),
  81: mellanox(
    ['LOC_PROT_ERR'],
    `${GATHER}; in all reports the key was right and the memory that of a GPU, so that PCIe or the IOMMU refused it`,
    'guess',
  ),
  82: mellanox(
    ['LOC_PROT_ERR'],
    `${GATHER}: its lkey, bounds or mapping; in reports a mistake of the program`,
    'guess',
  ),
  83: mellanox(
    ['LOC_PROT_ERR'],
    `${GATHER}: its lkey, bounds or mapping; in reports a mistake of the program`,
    'guess',
  ),
  86: mellanox(
    ['LOC_PROT_ERR'],
    `${GATHER}: its lkey, bounds or mapping; in reports a mistake of the program`,
    'guess',
  ),
  104: mellanox(
    ['LOC_LEN_ERR', 'LOC_QP_OP_ERR'],
    'the work request is not well formed, or longer than allowed',
    'likely',
  ),
  112: mellanox(['LOC_QP_OP_ERR'], 'the work request is not well formed, or not allowed on this queue pair', 'likely'),
  129: mellanox(['RETRY_EXC_ERR'], 'the timer for an answer ended retry_cnt + 1 times', 'likely'),
  131: mellanox(['RETRY_EXC_ERR'], 'retries are used up; seen where the network dropped packets', 'guess'),
  135: mellanox(['RNR_RETRY_EXC_ERR'], 'the peer had no receive, rnr_retry + 1 times', 'likely'),
  136: mellanox(['REM_ACCESS_ERR'], "the peer's NAK: remote access error", 'likely'),
  137: mellanox(['REM_OP_ERR'], "the peer's NAK: remote operational error", 'likely'),
  138: mellanox(['REM_INV_REQ_ERR'], "the peer's NAK: invalid request", 'likely'),
  147: {
    statuses: ['REM_ABORT_ERR'],
    text: 'a page fault of on-demand paging, which the library handles',
    certainty: 'sure',
    source: 'rdma-core 64.0 providers/mlx5/mlx5dv.h',
  },
  244: mellanox(['WR_FLUSH_ERR'], 'flushed: the queue pair had failed before, by another request', 'likely'),
  249: mellanox(['WR_FLUSH_ERR'], 'flushed: the queue pair had failed before, by another request', 'likely'),
}

const rowsOf = (
  source: string,
  rows: Readonly<Record<number, readonly [text: string, ...statuses: StatusName[]]>>,
): Readonly<Record<number, VendorRow>> =>
  Object.fromEntries(
    Object.entries(rows).map(([code, [text, ...statuses]]) => [
      code,
      { text, certainty: 'sure', source, ...(statuses.length > 0 && { statuses }) },
    ]),
  )

/** Also libfabric's own numbers from 4096, which stand in the same place. */
const efa = rowsOf('libfabric af8ddbe9 prov/efa/src/efa_errno.h; rdma-core 64.0 providers/efa/verbs.c', {
  [EfaStatus.FLUSHED]: ['flushed while the queue pair was destroyed', 'WR_FLUSH_ERR'],
  [EfaStatus.INTERNAL_ERROR]: ['an internal error of the queue pair', 'LOC_QP_OP_ERR'],
  [EfaStatus.UNSUPPORTED_OPERATION]: ['the adapter does not have this operation', 'LOC_QP_OP_ERR'],
  [EfaStatus.INVALID_AH]: ['the address handle is not valid', 'LOC_QP_OP_ERR'],
  [EfaStatus.INVALID_LKEY]: [
    'the local region is not valid, has no such right, or does not hold the address',
    'LOC_PROT_ERR',
  ],
  [EfaStatus.LOCAL_LENGTH]: ['the message is too long', 'LOC_LEN_ERR'],
  [EfaStatus.BAD_ADDRESS]: [
    "the peer's region is not valid, has no such right, or does not hold the address",
    'REM_ACCESS_ERR',
  ],
  [EfaStatus.ABORT]: ['the peer has reset the connection', 'REM_ABORT_ERR'],
  [EfaStatus.BAD_DESTINATION]: [
    'the peer has no such queue pair, or it is in ERR: the process there has ended, or restarted',
    'REM_INV_RD_REQ_ERR',
  ],
  [EfaStatus.NOT_READY]: ['the peer had no receive posted', 'RNR_RETRY_EXC_ERR'],
  [EfaStatus.REMOTE_LENGTH]: ["the peer's receive is too short", 'REM_INV_REQ_ERR'],
  [EfaStatus.BAD_STATUS]: ['the peer answered with a status that does not fit', 'BAD_RESP_ERR'],
  [EfaStatus.UNRESPONSIVE]: ['the peer has answered before, and answers no more', 'RESP_TIMEOUT_ERR'],
  [EfaStatus.UNKNOWN_PEER]: ['the peer has no address handle for this sender, which RDMA needs', 'REM_OP_ERR'],
  [EfaStatus.UNREACHABLE]: [
    'the peer has never answered: nothing arrives there, or nothing returns',
    'RESP_TIMEOUT_ERR',
  ],
  18: ['the peer does not have a feature that the request needs', 'REM_INV_REQ_ERR'],
  4105: ['libfabric: no memory'],
  4106: ['libfabric: a region could not be deregistered'],
  4110: ['libfabric: the address could not be added to the address vector'],
  4113: ['libfabric: the handshake could not be sent'],
  4114: ['libfabric: the work request could not be posted'],
  4122: ['libfabric: an error of the shared memory provider (peers on this host)'],
  4124: ['libfabric: the peer has answered before, and answers no more: its process has ended, or its adapter'],
  4126: ['libfabric: the adapter of the peer answers, and its process has made no handshake'],
  4127: ['libfabric: the peer has closed the region or the endpoint in the middle of the transfer'],
})

const irdma = rowsOf('rdma-core 64.0 providers/irdma/user.h', {
  65537: ['flushed', 'WR_FLUSH_ERR'],
  65538: ['key, bounds, right or protection domain of the local memory', 'LOC_PROT_ERR'],
  65539: ['the peer refuses the access', 'REM_ACCESS_ERR'],
  65540: ['the work request is not allowed on this queue pair', 'LOC_QP_OP_ERR'],
  65541: ['the peer could not execute the request', 'REM_OP_ERR'],
  65542: ['a length that does not fit', 'LOC_LEN_ERR'],
  65543: ['an error of the queue pair that has no other code', 'FATAL_ERR'],
  65544: ['retries are used up', 'RETRY_EXC_ERR'],
  65545: ['a memory window could not be bound', 'MW_BIND_ERR'],
  65546: ['the peer refuses the request as invalid', 'REM_INV_REQ_ERR'],
  65547: ['the peer had no receive, rnr_retry + 1 times', 'RNR_RETRY_EXC_ERR'],
})

/** The same number differs between requester and responder: the status tells which. */
const bnxt: readonly Readonly<Record<number, VendorRow>>[] = [
  rowsOf('rdma-core 64.0 providers/bnxt_re/bnxt_re-abi.h, requester', {
    1: ['the response does not fit', 'BAD_RESP_ERR'],
    2: ['a length that does not fit', 'LOC_LEN_ERR'],
    3: ['the work request is not allowed', 'LOC_QP_OP_ERR'],
    4: ['the local memory does not allow the access', 'LOC_PROT_ERR'],
    5: ['a memory operation (bind, invalidate) failed', 'MW_BIND_ERR'],
    6: ['the peer refuses the request as invalid', 'REM_INV_REQ_ERR'],
    7: ['the peer refuses the access', 'REM_ACCESS_ERR'],
    8: ['the peer could not execute the request', 'REM_OP_ERR'],
    9: ['the peer had no receive, rnr_retry + 1 times', 'RNR_RETRY_EXC_ERR'],
    10: ['retries are used up', 'RETRY_EXC_ERR'],
    11: ['flushed', 'WR_FLUSH_ERR'],
  }),
  rowsOf('rdma-core 64.0 providers/bnxt_re/bnxt_re-abi.h, responder', {
    1: ["the peer's request was refused", 'LOC_ACCESS_ERR'],
    2: ['the receive is too short', 'LOC_LEN_ERR'],
    3: ['the local memory does not allow the access', 'LOC_PROT_ERR'],
    4: ['the receive is not allowed', 'LOC_QP_OP_ERR'],
    5: ['a memory operation failed', 'MW_BIND_ERR'],
    6: ["the peer's request was invalid", 'REM_INV_REQ_ERR'],
    7: ['flushed', 'WR_FLUSH_ERR'],
    8: ['flushed by the adapter', 'WR_FLUSH_ERR'],
  }),
]

const mana = rowsOf('rdma-core 64.0 providers/mana/gdma.h', {
  67: ['the rkey is not valid'],
  131: ['the rkey has no such right'],
  195: ['the address is outside of the region'],
  258: ['the message is longer than the receive'],
  268: ['an error of PCIe while receiving'],
  273: ['no receive was posted'],
  353: ["the peer's NAK: invalid request", 'REM_INV_REQ_ERR'],
  354: ["the peer's NAK: remote access error", 'REM_ACCESS_ERR'],
  355: ["the peer's NAK: remote operational error", 'REM_OP_ERR'],
  356: ['RNR NAKs are used up', 'RNR_RETRY_EXC_ERR'],
  454: ['retries are used up', 'RETRY_EXC_ERR'],
  521: ['an error of PCIe while reading what was to be sent'],
  4095: ['flushed', 'WR_FLUSH_ERR'],
})

const tables: Readonly<Partial<Record<Family, readonly Readonly<Record<number, VendorRow>>[]>>> = {
  mlx5: [connectX],
  mlx4: [connectX],
  efa: [efa],
  irdma: [irdma],
  bnxt_re: bnxt,
  mana: [mana],
}

const familyNames: Readonly<Partial<Record<Family, string>>> = {
  mlx5: 'ConnectX (mlx5)',
  mlx4: 'ConnectX-3 (mlx4)',
  efa: 'EFA',
  irdma: 'Intel (irdma)',
  bnxt_re: 'Broadcom (bnxt_re)',
  hns: 'HiSilicon (hns)',
  mana: 'Microsoft (mana)',
  userdma: 'userdma',
}
export const familyName = (family: Family): string => familyNames[family] ?? 'an unknown adapter'

/** By the name that its driver gives a device, if nobody has renamed it; `none`: rxe and siw, which have no codes. */
export const familyOf = (device: string | undefined): Family | undefined => {
  if (device === undefined) return undefined
  const [family] =
    (
      [
        ['mlx5', /^mlx5/],
        ['mlx4', /^mlx4/],
        ['efa', /^(?:efa|rdmap\d+s\d+)/],
        ['irdma', /^irdma/],
        ['bnxt_re', /^bnxt_re/],
        ['hns', /^hns_/],
        ['mana', /^mana_/],
        ['none', /^(?:rxe|siw)/],
      ] as const
    ).find(([, form]) => form.test(device)) ?? []
  return family
}

/** The row of a vendor error. `status`: of the same completion, which chooses between rows of one number. */
export const vendorRow = (family: Family, code: number, status?: StatusName): VendorRow | undefined => {
  if (family === 'userdma') {
    const name = causeOfCode(code)
    return name === undefined ? undefined : ownRow(name)
  }
  const rows = (tables[family] ?? []).flatMap(table => (table[code] === undefined ? [] : [table[code]]))
  const fits = (row: VendorRow): boolean => status === undefined || row.statuses?.includes(status) === true
  return rows.find(fits) ?? (rows.length === 1 ? rows[0] : undefined)
}

const ownRow = (name: CauseName): VendorRow => ({
  text: `${name}: ${causes[name].text.replace(/\{(\w+)(?::\w+)?\}/g, '<$1>')}`,
  certainty: 'sure',
  source: "userdma's own vendor errors",
})

/** All rows, for a table of the documentation and for bare numbers. */
export const vendorRows = (): readonly { family: Family; code: number; row: VendorRow }[] =>
  Object.entries(tables).flatMap(([family, list]) =>
    family === 'mlx4'
      ? []
      : (list ?? []).flatMap(table =>
          Object.entries(table).map(([code, row]) => ({ family: family as Family, code: Number(code), row })),
        ),
  )
