/*
 * The frozen numbers of the object dialect: class ids, call numbers, and flags of messages and attributes (R2, R3, R5,
 * docs/reference/object-dialect.md). Programs are built against these numbers: never change or reuse one
 * (test/fixtures/spec/frozen.txt).
 */
import { Block } from '../schema/schema.ts'

/** 15 and 37 are not assigned. */
export const ClassId = {
  interface: 1,
  device: 2,
  port: 3,
  pd: 4,
  cq: 5,
  mr: 6,
  comp_channel: 7,
  async_fd: 8,
  srq: 9,
  xrc_srq: 10,
  tm_srq: 11,
  ah: 12,
  mw: 13,
  xrcd: 14,
  rc_qp: 16,
  uc_qp: 17,
  ud_qp: 18,
  xrc_ini_qp: 19,
  xrc_tgt_qp: 20,
  raw_packet_qp: 21,
  gsi_qp: 22,
  smi_qp: 23,
  rd_qp: 24,
  flow: 25,
  counters: 26,
  dm: 27,
  wq: 28,
  rwq_ind_table: 29,
  event_queue: 30,
  system: 31,
  cm_channel: 32,
  cm_id: 33,
  cm_multicast: 34,
  mad_channel: 35,
  mad_agent: 36,
  ip_interface: 38,
  ip_socket: 39,
  driver_ops: 40,
  driver_qp: 41,
  dci_qp: 42,
  dct_qp: 43,
  dmah: 44,
} as const

/** The classes of queue pairs. */
const queuePairs: ReadonlySet<string> = new Set(Object.keys(ClassId).filter(name => name.endsWith('_qp')))
export const isQueuePairClass = (name: string): boolean => queuePairs.has(name)

/** The classes of shared receive queues. */
export const SRQ_CLASSES = ['srq', 'xrc_srq', 'tm_srq'] as const
export const isSrqClass = (name: string): boolean => (SRQ_CLASSES as readonly string[]).includes(name)

/** Numbers of methods by class, without the common methods (create, query, modify, destroy, create_fd, chain). */
export const CallNumber = {
  device: {
    open: Block.MANAGEMENT + 0,
    queryHandles: Block.MANAGEMENT + 1,
    queryGidTable: Block.MANAGEMENT + 2,
    queryClock: Block.MANAGEMENT + 3,
    queryDriverOps: Block.MANAGEMENT + 8,
  },
  port: { queryGidEntry: Block.MANAGEMENT + 0, querySpeed: Block.MANAGEMENT + 1 },
  pd: { createAhs: Block.DRIVER_FAST + 0, destroyAhs: Block.DRIVER_FAST + 1, advise: Block.MANAGEMENT + 0 },
  cq: { reqNotify: Block.DRIVER_FAST + 0 },
  comp_channel: { getEvent: Block.MANAGEMENT + 0 },
  async_fd: { getEvent: Block.MANAGEMENT + 0 },
  cm_channel: { getEvent: Block.MANAGEMENT + 0 },
  cm_id: {
    queryGids: Block.MANAGEMENT + 0,
    queryPath: Block.MANAGEMENT + 1,
    bind: Block.MANAGEMENT + 2,
    resolveAddress: Block.MANAGEMENT + 3,
    resolveRoute: Block.MANAGEMENT + 4,
    connect: Block.MANAGEMENT + 5,
    listen: Block.MANAGEMENT + 6,
    accept: Block.MANAGEMENT + 7,
    reject: Block.MANAGEMENT + 8,
    disconnect: Block.MANAGEMENT + 9,
    initQpAttr: Block.MANAGEMENT + 10,
    setOption: Block.MANAGEMENT + 11,
    notify: Block.MANAGEMENT + 12,
    writeEvent: Block.MANAGEMENT + 13,
    resolveService: Block.MANAGEMENT + 14,
    queryServices: Block.MANAGEMENT + 15,
  },
  mad_channel: { receive: Block.MANAGEMENT + 0 },
  mad_agent: { send: Block.MANAGEMENT + 0 },
  ip_socket: {
    send: Block.MANAGEMENT + 0,
    receive: Block.MANAGEMENT + 1,
    join: Block.MANAGEMENT + 2,
    leave: Block.MANAGEMENT + 3,
  },
  event_queue: { attach: Block.MANAGEMENT + 0, detach: Block.MANAGEMENT + 1, getEvents: Block.MANAGEMENT + 2 },
  tm_srq: { tagAdd: Block.DRIVER_FAST + 0, tagDel: Block.DRIVER_FAST + 1, tagSync: Block.DRIVER_FAST + 2 },
  rc_qp: { postSend: Block.DRIVER_FAST + 0 },
  uc_qp: { postSend: Block.DRIVER_FAST + 0 },
  xrc_ini_qp: { postSend: Block.DRIVER_FAST + 0 },
  raw_packet_qp: { postSend: Block.DRIVER_FAST + 0 },
  gsi_qp: { postSend: Block.DRIVER_FAST + 0 },
  smi_qp: { postSend: Block.DRIVER_FAST + 0 },
  rd_qp: { postSend: Block.DRIVER_FAST + 0 },
  driver_qp: { postSend: Block.DRIVER_FAST + 0 },
  ud_qp: { postSend: Block.DRIVER_FAST + 0, attachMcast: Block.MANAGEMENT + 0, detachMcast: Block.MANAGEMENT + 1 },
} as const

/**
 * Flags of an attribute: bits 0 to 15 of the flags word. MANDATORY: a device that does not know the attribute refuses
 * the call; without the flag the device ignores the attribute. OUT: an output. FILLED: the device has written the
 * output. INDIRECT: the payload is elsewhere in the caller's memory. CHAINED: the payload is the number of the chain
 * entry that created the referenced object.
 *
 * In the reply, bits 16 to 31 of an output are the bytes written or, after ENOSPC, the bytes needed. An indirect output
 * has this number in the length of its payload.
 */
export const AttributeFlag = { MANDATORY: 1, OUT: 2, FILLED: 4, INDIRECT: 8, CHAINED: 16 } as const

/** Flags of a chain entry. OBJECT: the call is on the object that entry `ref` created. */
export const ChainEntryFlag = { OBJECT: 1 } as const

/** Flags of a message. ANSWERED: the message is a reply. */
export const MessageFlag = { ANSWERED: 1 } as const

/** Values of a message's op_ctrl, the layout of its attributes. */
export const OpCtrl = { ATTRIBUTES: 0 } as const

/** Attribute ids with the same meaning in every method. LEGACY: bytes of a Linux call that no attribute has. */
export const CommonAttribute = { LEGACY: 0x7ff0 } as const

/** First id of drivers' own classes, and of the attributes that drivers add to common classes. */
export const DRIVER_FIRST = 0x8000
