/*
 * The mlx5 driver's classes for firmware commands (DEVX), and Linux's objects and methods for them
 * (mlx5_user_ioctl_cmds.h). A program with a context of MLX5_IB_ALLOC_UCTX_DEVX gives commands in the adapter's format:
 * `input` and `output` are the bytes of mlx5_ifc.h, as declared in mlx5-firmware/. `outBytes`: the program's buffer for
 * `output`.
 *
 * An adapter refuses a command by a status and a syndrome in its answer. As in Linux, the call then fails with
 * EREMOTEIO, and the answer is written nevertheless.
 */

import { SRQ_CLASSES } from '../classes/ids.ts'
import { AccessFlags } from '../enums.ts'
import {
  driverBlob,
  driverBlobOut,
  driverDestruction,
  driverFd,
  driverFlags,
  driverHandle,
  driverInput,
  driverNewFd,
  driverNewHandle,
  driverObjectMethod,
  driverOutput,
  optionalAttribute,
} from '../linux/ioctl.ts'
import { value } from '../linux/layout.ts'
import { LINUX_QP_CLASSES } from '../linux/structs.ts'
import {
  Block,
  blob,
  CREATE,
  CREATE_FD,
  DESTROY,
  fd,
  method,
  objectClass,
  optional,
  u32,
  u64,
} from '../schema/schema.ts'

/** The length of an attribute is a u16. */
const MAX_BYTES = 0xffff
/** Bytes of general_obj_in_cmd_hdr and general_obj_out_cmd_hdr. */
const HEADER_BYTES = 16

const command = { input: blob(1, MAX_BYTES), outBytes: u32(2) } as const
const answer = { output: blob(64, MAX_BYTES) } as const
/** Of a command about an object. `handle`: of a `devx_obj`, or of a queue that was made by verbs. */
const aboutObject = { ...command, handle: u32(3) } as const

/** Commands about the device, and about objects. The methods of MLX5_IB_OBJECT_DEVX, and others of …_DEVX_OBJ. */
export const Devx = objectClass('devx', 0x8001, {
  identity: 'fixed',
  methods: {
    command: method(Block.DRIVER_FAST, { role: 'changes', in: command, out: answer }),
    modify: method(Block.DRIVER_FAST + 1, { role: 'modifies', in: aboutObject, out: answer }),
    query: method(Block.DRIVER_FAST + 2, { role: 'asks', in: aboutObject, out: answer }),
    /** As `query`, with the answer in a record of the channel: {u64 wrId}, and the output. */
    queryAsync: method(Block.DRIVER_FAST + 3, {
      role: 'asks',
      in: {
        input: blob(1, MAX_BYTES),
        handle: u32(3),
        channel: fd(4, 'devx_async_cmd_fd'),
        outputBytes: u64(5),
        wrId: u64(6),
      },
      out: {},
    }),
    /** The number, in commands, of a page of doorbells that the context has had from its beginning. */
    queryUar: method(Block.DRIVER_FAST + 4, { role: 'asks', in: { index: u32(1) }, out: { page: u32(64) } }),
    /** Events of a `devx_obj`, or of the device, go to the channel, or to the eventfd. `types`: u16s. */
    subscribe: method(Block.DRIVER_FAST + 6, {
      role: 'changes',
      in: {
        channel: fd(1, 'devx_async_event_fd'),
        handle: optional(u32(2)),
        types: blob(3, MAX_BYTES),
        eventFd: optional(u32(4)),
        cookie: optional(u64(5)),
      },
      out: {},
    }),
    /** The event queue of a completion vector. */
    queryEqn: method(Block.DRIVER_FAST + 5, { role: 'asks', in: { vector: u32(1) }, out: { eqn: u32(64) } }),
  },
})

/** An object that a command has created; for queues and domains there is an object of their class, too. */
export const DevxObj = objectClass('devx_obj', 0x8002, {
  methods: {
    create: method(CREATE, { in: command, out: answer }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

/** Memory of the program, for commands: registered without key. `file`: a dma-buf, where `address` is an offset. */
export const DevxUmem = objectClass('devx_umem', 0x8003, {
  methods: {
    create: method(CREATE, {
      in: {
        address: u64(1),
        length: u64(2),
        access: optional(u32(3)),
        pageSizes: optional(u64(4)),
        file: optional(u32(5)),
      },
      out: { umem: u32(64) },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})

/** Answers of `queryAsync`. */
export const DevxAsyncCmdFd = objectClass('devx_async_cmd_fd', 0x8004, {
  identity: 'fd',
  methods: { create: method(CREATE_FD, { in: {}, out: {} }) },
})

/** MLX5_IB_UAPI_DEVX_CR_EV_CH_FLAGS_…: records have a cookie only. */
export const ChannelFlags = { OMIT_DATA: 1 } as const

/** A channel of events. Records: a u64, the cookie of the subscription, then an entry of the event queue (mlx5_eqe). */
export const DevxAsyncEventFd = objectClass('devx_async_event_fd', 0x8005, {
  identity: 'fd',
  methods: { create: method(CREATE_FD, { in: { flags: u32(1) }, out: {} }) },
})

/** MLX5_IB_OBJECT_DEVX and the following. */
const LinuxDevx = {
  DEVX: 0x1000,
  DEVX_OBJ: 0x1001,
  DEVX_UMEM: 0x1002,
  DEVX_ASYNC_CMD_FD: 0x1004,
  DEVX_ASYNC_EVENT_FD: 0x1005,
} as const

/** Objects that DEVX_OBJ_MODIFY and …_QUERY take (UVERBS_IDR_ANY_OBJECT), as far as the device has them. */
const ANY_OBJECT = ['devx_obj', 'cq', 'wq', 'rwq_ind_table', 'dci_qp', 'dct_qp', ...SRQ_CLASSES, ...LINUX_QP_CLASSES]
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ } = AccessFlags.values

const input = driverBlob('input', HEADER_BYTES)
const output = driverBlobOut('output', HEADER_BYTES)
const anyObject = driverHandle('handle', ANY_OBJECT)
const { DEVX, DEVX_OBJ, DEVX_UMEM, DEVX_ASYNC_CMD_FD, DEVX_ASYNC_EVENT_FD } = LinuxDevx

export const devxMethods = [
  driverObjectMethod('DEVX_OTHER', DEVX, 0, Devx, 'command', [input, output]),
  driverObjectMethod('DEVX_QUERY_UAR', DEVX, 1, Devx, 'queryUar', [
    driverInput(value(0, 4, 'index')),
    driverOutput(value(0, 4, 'page')),
  ]),
  driverObjectMethod('DEVX_QUERY_EQN', DEVX, 2, Devx, 'queryEqn', [
    driverInput(value(0, 4, 'vector')),
    driverOutput(value(0, 4, 'eqn')),
  ]),
  driverObjectMethod('DEVX_OBJ_CREATE', DEVX_OBJ, 0, DevxObj, 'create', [driverNewHandle, input, output]),
  driverDestruction('DEVX_OBJ_DESTROY', DEVX_OBJ, DevxObj),
  driverObjectMethod('DEVX_OBJ_MODIFY', DEVX_OBJ, 2, Devx, 'modify', [anyObject, input, output]),
  driverObjectMethod('DEVX_OBJ_QUERY', DEVX_OBJ, 3, Devx, 'query', [anyObject, input, output]),
  driverObjectMethod('DEVX_OBJ_ASYNC_QUERY', DEVX_OBJ, 4, Devx, 'queryAsync', [
    anyObject,
    input,
    driverFd('channel'),
    driverInput(value(0, 8, 'wrId')),
    driverInput(value(0, 8, 'outputBytes')),
  ]),
  driverObjectMethod('DEVX_UMEM_REG', DEVX_UMEM, 0, DevxUmem, 'create', [
    driverNewHandle,
    driverInput(value(0, 8, 'address')),
    driverInput(value(0, 8, 'length')),
    optionalAttribute(driverFlags('access', LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ)),
    driverOutput(value(0, 4, 'umem')),
    optionalAttribute(driverInput(value(0, 8, 'pageSizes'))),
    optionalAttribute(driverFd('file')),
  ]),
  driverDestruction('DEVX_UMEM_DEREG', DEVX_UMEM, DevxUmem),
  driverObjectMethod('DEVX_SUBSCRIBE_EVENT', DEVX, 3, Devx, 'subscribe', [
    driverFd('channel'),
    optionalAttribute(driverHandle('handle', ['devx_obj'])),
    driverBlob('types', 2),
    optionalAttribute(driverInput(value(0, 4, 'eventFd'))),
    optionalAttribute(driverInput(value(0, 8, 'cookie'))),
  ]),
  driverObjectMethod('DEVX_ASYNC_EVENT_FD_ALLOC', DEVX_ASYNC_EVENT_FD, 0, DevxAsyncEventFd, 'create', [
    driverNewFd,
    driverFlags('flags', ChannelFlags.OMIT_DATA),
  ]),
  driverObjectMethod('DEVX_ASYNC_CMD_FD_ALLOC', DEVX_ASYNC_CMD_FD, 0, DevxAsyncCmdFd, 'create', [driverNewFd]),
]
