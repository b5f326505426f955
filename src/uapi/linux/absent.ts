/*
 * Linux's calls that deliberately have no method here, with the reasons, which error messages show. As in Linux, a
 * write command is refused with EOPNOTSUPP, an ioctl with EPROTONOSUPPORT: libibverbs then falls back to the write
 * command.
 */
import type { ExtendedName, ioctlNames, WriteName } from '../../spec/linux/names.ts'

type Ioctl = {
  [O in keyof typeof ioctlNames]: `${O}.${Extract<keyof (typeof ioctlNames)[O], string>}`
}[keyof typeof ioctlNames]

const NEVER = 'Linux reserves its number and has never implemented it'
const IN_RINGS = "programs do it in the mapped ring, so Linux's rxe does not implement it either"
const NO_COUNTERS = 'no device here counts completions in the memory of programs'
const NO_IPSEC = 'it sets up IPsec in hardware'

/** By Linux's name of the command. */
export const absentCommands: Readonly<Partial<Record<WriteName | ExtendedName, string>>> = {
  MODIFY_AH: NEVER,
  QUERY_AH: NEVER,
  REG_SMR: NEVER,
  QUERY_MR: `${NEVER}; the ioctl of that name is supported`,
  BIND_MW: `${NEVER}: windows are bound by work requests`,
  PEEK_CQ: NEVER,
  POLL_CQ: IN_RINGS,
  POST_RECV: IN_RINGS,
  POST_SRQ_RECV: IN_RINGS,
}

/** By OBJECT.METHOD. */
export const absentIoctls: Readonly<Partial<Record<Ioctl, string>>> = {
  'FLOW_ACTION.FLOW_ACTION_ESP_CREATE': NO_IPSEC,
  'FLOW_ACTION.FLOW_ACTION_DESTROY': NO_IPSEC,
  'FLOW_ACTION.FLOW_ACTION_ESP_MODIFY': NO_IPSEC,
  'DMABUF.DMABUF_ALLOC': 'only a kernel can make a dma-buf of pages',
  'DEVICE.QUERY_COMP_CNTR_CAPS': NO_COUNTERS,
  'QP.QP_ATTACH_COMP_CNTR': NO_COUNTERS,
  'COMP_CNTR.COMP_CNTR_CREATE': NO_COUNTERS,
  'COMP_CNTR.COMP_CNTR_DESTROY': NO_COUNTERS,
  'COMP_CNTR.COMP_CNTR_MODIFY': NO_COUNTERS,
  'COMP_CNTR.COMP_CNTR_READ': NO_COUNTERS,
}
