/*
 * Reads the output of recorded programs (test/fixtures/wire/logs). Lines of the client start with [a], lines of the
 * server with [b].
 */
import { readFileSync } from 'node:fs'
import { fixture } from '../../../paths.ts'
import type { Side } from './conversation.ts'

export interface LoggedCompletion {
  readonly status: number
  readonly opcode: number
  readonly bytes: number
  readonly imm: number
  readonly flags: number
}

interface Log {
  readonly qpn: number
  readonly psn: number
  readonly rkey: number
  readonly address: bigint
  readonly completions: readonly LoggedCompletion[]
  /** Final ibv_qp_state, if printed. */
  readonly state?: number
}

/** Buffer length of every program. */
export const BUFFER_BYTES = 65536

/** The output of one side in `logs/NAME.log`. */
export const readLog = (name: string, side: Side): Log => {
  const prefix = side === 0 ? '[a] ' : '[b] '
  const lines = readFileSync(fixture('wire', 'logs', `${name}.log`), 'utf8')
    .split('\n')
    .filter(line => line.startsWith(prefix))
  const endpoint = lines
    .map(line => /qpn (\S+) psn (\S+) rkey (\S+) addr (\S+);/.exec(line))
    .find(found => found !== null)
  if (endpoint === undefined) throw new Error(`logs/${name}.log has no qpn, psn, rkey and addr of side ${side}`)
  const state = lines.map(line => /qp state (\d)/.exec(line)).find(found => found !== null)
  const completions = lines.flatMap(line => {
    const wc = /status (\d+) .* opcode (\d+) len (\d+) imm (\S+) flags (\d+)/.exec(line)
    return wc === null ? [] : [{ status: +wc[1], opcode: +wc[2], bytes: +wc[3], imm: Number(wc[4]), flags: +wc[5] }]
  })
  return {
    qpn: Number(endpoint[1]),
    psn: Number(endpoint[2]),
    rkey: Number(endpoint[3]),
    address: BigInt(endpoint[4]),
    completions,
    ...(state !== undefined && { state: +state[1] }),
  }
}
