/*
 * The headers with which every request packet begins: the BTH and, for XRC, the XRCETH with the receiver's SRQ
 * (InfiniBand Architecture Specification, volume 1, clause 9.2, annex A14).
 */

import { Service } from '../../../spec/wire/services.ts'
import { SRQN_SHIFT } from '../../../spec/work.ts'
import { BTH_BYTES, putBth } from '../../wire/bth.ts'
import { putXrceth } from '../../wire/extensions.ts'
import { QP, WQE } from '../fields.ts'
import type { EngineState } from '../state.ts'
import { Send } from '../types.ts'

const { XRC_INI } = Service
const NO_SRQ = -1

/** The number of the receiver's SRQ; NO_SRQ for services other than XRC. */
export const srqnOf = (s: EngineState, base: number, request: number): number =>
  s.rows[base + QP.SERVICE] === XRC_INI ? s.pool[request + WQE.WR + Send.FLAGS] >>> SRQN_SHIFT : NO_SRQ

/** `flags`: of `putBth`; `psn`: with BTH_ACKREQ to request an ACK; `srqn`: from `srqnOf`. */
export const putRequestHeader = (
  view: DataView,
  at: number,
  opcode: number,
  flags: number,
  pkey: number,
  qpn: number,
  psn: number,
  srqn: number,
): void => {
  putBth(view, at, opcode, flags, pkey, qpn, psn)
  if (srqn !== NO_SRQ) putXrceth(view, at + BTH_BYTES, srqn)
}
