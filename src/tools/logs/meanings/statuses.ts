/*
 * A completion status in the words of any program: a number, an ABI name, the text of libibverbs, the kernel or UCX.
 * And opcodes, which a failed completion need not have.
 */

import { libibverbsTexts, type StatusName } from '../../../spec/check/statuses.ts'
import { syndromes } from '../../../spec/drivers/mlx5-queues.ts'
import { WcOpcode, WcStatus } from '../../../spec/work.ts'

/** ib_wc_status_msg (Linux 6.1) where it differs from ibv_wc_status_str. */
const kernelTexts: Readonly<Record<string, StatusName>> = {
  'WR flushed': 'WR_FLUSH_ERR',
  'memory bind operation error': 'MW_BIND_ERR',
  'operation aborted': 'REM_ABORT_ERR',
}

/** uct_ib_mlx5_completion_with_err (UCX 1.15). */
const ucxTexts: Readonly<Record<string, StatusName>> = {
  'Local length error': 'LOC_LEN_ERR',
  'Local QP operation error': 'LOC_QP_OP_ERR',
  'Local protection error': 'LOC_PROT_ERR',
  'WR flushed because QP in error state': 'WR_FLUSH_ERR',
  'Memory window bind error': 'MW_BIND_ERR',
  'Bad response': 'BAD_RESP_ERR',
  'Local access error': 'LOC_ACCESS_ERR',
  'Invalid request': 'REM_INV_REQ_ERR',
  'Remote access error': 'REM_ACCESS_ERR',
  'Remote operation error': 'REM_OP_ERR',
  'Transport retry count exceeded': 'RETRY_EXC_ERR',
  'Receive-no-ready retry count exceeded': 'RNR_RETRY_EXC_ERR',
  'Remote side aborted': 'REM_ABORT_ERR',
}

/** Names in qedr's header where they are no texts of libibverbs. */
const qedrTexts: Readonly<Record<string, StatusName>> = {
  'memory mgt operation error': 'MW_BIND_ERR',
  'rnr nak retry cnt error': 'RNR_RETRY_EXC_ERR',
  'transport retry cnt error': 'RETRY_EXC_ERR',
}

const names = Object.keys(WcStatus.values) as StatusName[]
const byText = new Map<string, StatusName>([
  ...names.flatMap(name =>
    libibverbsTexts[name] === undefined ? [] : [[libibverbsTexts[name].toLowerCase(), name] as const],
  ),
  ...Object.entries({ ...kernelTexts, ...ucxTexts, ...qedrTexts }).map(
    ([text, name]) => [text.toLowerCase(), name] as const,
  ),
  // mca_btl_openib, which has no blanks, and GASNet.
  ['timeout', 'RETRY_EXC_ERR'],
])

/** Texts of a status that stand for nothing else, wherever a line has them. */
export const certainTexts: readonly string[] = [
  ...names
    .flatMap(name => libibverbsTexts[name] ?? [])
    .filter(text => !['success', 'fatal error', 'general error'].includes(text)),
  ...Object.keys(ucxTexts).filter(text => text.includes('ransport') || text.includes('rotection')),
]

/** The name of a status; undefined if it is none, such as `x` of somebody who has redacted it. */
export const statusNamed = (word: string): StatusName | undefined => {
  const text = word.trim()
  if (/^(?:\d{1,3}|0x[0-9a-f]{1,2})$/i.test(text)) return names.find(name => WcStatus.values[name] === Number(text))
  const plain = text.toUpperCase().replace(/^IBV?_WC_/, '')
  return (
    names.find(name => name === plain || name === `${plain}_ERR`) ??
    byText.get(text.toLowerCase()) ??
    byText.get(text.toLowerCase().replaceAll('_', ' ').replace(/ err$/, ' error'))
  )
}

export const statusNumber = (name: StatusName): number => WcStatus.values[name]

/** The syndrome of a CQE of mlx5, mlx4 and hns. */
export const statusOfSyndrome = (syndrome: number): StatusName | undefined => {
  const entry = Object.entries(syndromes).find(([, value]) => value === syndrome)
  return entry === undefined ? undefined : names.find(name => WcStatus.values[name] === Number(entry[0]))
}

/** The name of an ibv_wc_opcode; undefined for what is none. */
export const opcodeNamed = (word: string): string | undefined =>
  /^\d+$/.test(word)
    ? Object.entries(WcOpcode.values).find(([, value]) => value === Number(word))?.[0]
    : Object.keys(WcOpcode.values).find(name => name === word.toUpperCase().replace(/^IBV_WC_/, ''))

/** Opcodes of work requests in a CQE of mlx5 (mlx5dv.h of rdma-core 64.0). */
export const wqeOpcodes: Readonly<Record<number, string>> = {
  0: 'NOP',
  1: 'SEND with invalidate',
  8: 'WRITE',
  9: 'WRITE with immediate',
  10: 'SEND',
  11: 'SEND with immediate',
  14: 'TSO',
  16: 'READ',
  17: 'compare and swap',
  18: 'fetch and add',
  37: 'UMR',
}
