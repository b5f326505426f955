/*
 * The ring layout for programs in this process: a send request with one scatter/gather element takes 64 bytes, a
 * receive request 32, a completion 64, a ring header 16. Fields that no opcode needs together may have the same offset.
 * A datagram names its address handle; there are no address vectors (UD_VECTOR 0).
 */

import { Wc } from './mapped-rings.ts'
import type { RingLayout } from './ring-layout.ts'

export const compactLayout: RingLayout = {
  name: 'compact',
  header: { PRODUCER: 0, CONSUMER: 4, INDEX_MASK: 8, LOG2_ELEMENT: 12, DATA: 16 },
  hasFreeRunningIndices: true,
  isSingleThreaded: true,
  minElement: 16,
  wc: { ...Wc, ELEMENT_SHIFT: 6 },
  send: {
    WR_ID: 0,
    OPCODE: 8,
    FLAGS: 12,
    DMA_NUM_SGE: 16,
    DMA_LENGTH: 20,
    IMM: 24,
    RKEY: 28,
    REMOTE: 32,
    ATOMIC_RKEY: 20,
    ATOMIC_COMPARE_ADD: 24,
    ATOMIC_SWAP: 40,
    MW_LKEY: 20,
    MW_KEY: 24,
    MW_NEW_KEY: 28,
    MW_LENGTH: 40,
    MW_ACCESS: 48,
    FLUSH_RKEY: 28,
    FLUSH_PLACEMENT: 40,
    FLUSH_SELECTIVITY: 41,
    UD_QPN: 28,
    UD_QKEY: 32,
    UD_AH: 36,
    UD_VECTOR: 0,
    SGE: 48,
  },
  receive: { WR_ID: 0, DMA_NUM_SGE: 8, SGE: 16 },
}
