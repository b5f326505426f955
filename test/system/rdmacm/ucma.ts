/*
 * The program test/programs/connections/ucma.c, which writes commands to an rdma_cm file as a test requests. Offsets
 * are those of the structs of Linux's rdma_user_cm.h.
 */
import assert from 'node:assert/strict'
import { CmEventType, CmPortSpace } from '../../../src/spec/enums.ts'
import { ownProgram, type Scope, type TestDaemon } from '../programs.ts'
import { StepProgram, type StepResult } from '../steps.ts'

export const UCMA_PROGRAM = ownProgram('ucma')

/** RDMA_USER_CM_CMD_* */
export const UcmaCommand = {
  CREATE_ID: 0,
  DESTROY_ID: 1,
  RESOLVE_ROUTE: 4,
  QUERY_ROUTE: 5,
  CONNECT: 6,
  LISTEN: 7,
  ACCEPT: 8,
  REJECT: 9,
  DISCONNECT: 10,
  GET_EVENT: 12,
  BIND: 20,
  RESOLVE_ADDR: 21,
} as const

const EAGAIN = -11

/** Offset of `valid` in struct rdma_ucm_conn_param. */
const VALID = 271

/** Bytes of struct rdma_ucm_event_resp. */
const EVENT_BYTES = 336

const body = (size: number): DataView => new DataView(new ArrayBuffer(size))
const bytesOf = (view: DataView): Buffer => Buffer.from(view.buffer, view.byteOffset, view.byteLength)

/** A sockaddr_in of 127.0.0.1. */
const storeLoopback = (view: DataView, offset: number, port: number): void => {
  view.setUint16(offset, 2, true) // AF_INET
  view.setUint16(offset + 2, port)
  view.setUint32(offset + 4, 0x7f00_0001)
}

interface UcmaEvent {
  readonly name: string
  readonly id: number
  readonly userHandle: bigint
  readonly status: number
  readonly ece: Ece
}

/** Vendor options of one end of a connection (enhanced connection establishment). */
interface Ece {
  readonly vendorId: number
  readonly attrMod: number
}

const storeEce = (view: DataView, offset: number, { vendorId, attrMod }: Ece): void => {
  view.setUint32(offset, vendorId, true)
  view.setUint32(offset + 4, attrMod, true)
}
const noEce: Ece = { vendorId: 0, attrMod: 0 }

/** Each method is a command, and returns the command's size or minus an errno, if it does not say otherwise. */
export class UcmaProgram extends StepProgram {
  /** Starts the program and opens a channel; `user`: UID of the program. */
  static async start(t: Scope, daemon: TestDaemon, user?: number): Promise<UcmaProgram> {
    const self = new UcmaProgram(t, UCMA_PROGRAM, daemon, user)
    assert.ok((await self.step('open')).result >= 0)
    return self
  }

  /** `responseAt`: where the body has the address of the response; -1: the command has no response. */
  write(number: number, view: DataView, responseAt = -1, responseBytes = 0): Promise<StepResult> {
    return this.step(`write ${number} ${responseAt} ${responseBytes} ${bytesOf(view).toString('hex')}`)
  }

  /** CREATE_ID; returns the identifier. */
  async create(userHandle = 0n): Promise<number> {
    const view = body(24)
    view.setBigUint64(0, userHandle, true)
    view.setUint16(16, CmPortSpace.values.TCP, true)
    const { result, view: response } = await this.write(UcmaCommand.CREATE_ID, view, 8, 4)
    return result < 0 ? result : response.getUint32(0, true)
  }

  /** DESTROY_ID; returns the number of events of the identifier that were read. */
  async destroy(id: number): Promise<number> {
    const view = body(16)
    view.setUint32(8, id, true)
    const { result, view: response } = await this.write(UcmaCommand.DESTROY_ID, view, 0, 4)
    return result < 0 ? result : response.getUint32(0, true)
  }

  async bind(id: number, port: number): Promise<number> {
    const view = body(136)
    view.setUint32(0, id, true)
    view.setUint16(4, 16, true)
    storeLoopback(view, 8, port)
    return (await this.write(UcmaCommand.BIND, view)).result
  }

  async listen(id: number, backlog = 0): Promise<number> {
    const view = body(8)
    view.setUint32(0, id, true)
    view.setUint32(4, backlog, true)
    return (await this.write(UcmaCommand.LISTEN, view)).result
  }

  /** RESOLVE_ADDR and RESOLVE_ROUTE of 127.0.0.1. */
  async resolve(id: number, port: number): Promise<number> {
    const view = body(272)
    view.setUint32(0, id, true)
    view.setUint32(4, 1000, true)
    view.setUint16(10, 16, true)
    storeLoopback(view, 144, port)
    const { result } = await this.write(UcmaCommand.RESOLVE_ADDR, view)
    if (result < 0) return result
    const route = body(8)
    route.setUint32(0, id, true)
    return (await this.write(UcmaCommand.RESOLVE_ROUTE, route)).result
  }

  async connect(id: number, qpn: number, ece = noEce): Promise<number> {
    const view = body(288)
    view.setUint32(0, qpn, true)
    view.setUint8(VALID, 1)
    view.setUint32(272, id, true)
    storeEce(view, 280, ece)
    return (await this.write(UcmaCommand.CONNECT, view)).result
  }

  /** With `qpn` a server accepts a request; without it a client confirms the server's reply. */
  async accept(id: number, qpn?: number, ece = noEce): Promise<number> {
    const view = body(296)
    view.setUint32(8, qpn ?? 0, true)
    view.setUint8(8 + VALID, qpn === undefined ? 0 : 1)
    view.setUint32(280, id, true)
    storeEce(view, 288, ece)
    return (await this.write(UcmaCommand.ACCEPT, view)).result
  }

  async reject(id: number, reason: number): Promise<number> {
    const view = body(264)
    view.setUint32(0, id, true)
    view.setUint8(5, reason)
    return (await this.write(UcmaCommand.REJECT, view)).result
  }

  async disconnect(id: number): Promise<number> {
    const view = body(4)
    view.setUint32(0, id, true)
    return (await this.write(UcmaCommand.DISCONNECT, view)).result
  }

  /** GET_EVENT: the oldest event; undefined if none is queued. */
  async event(): Promise<UcmaEvent | undefined> {
    const { result, view } = await this.write(UcmaCommand.GET_EVENT, body(8), 0, EVENT_BYTES)
    if (result === EAGAIN) return undefined
    assert.ok(result >= 0, `GET_EVENT: ${result}`)
    const type = view.getUint32(12, true)
    const name = Object.entries(CmEventType.values).find(([, value]) => value === type)?.[0] ?? String(type)
    return {
      name,
      id: view.getUint32(8, true),
      userHandle: view.getBigUint64(0, true),
      status: view.getInt32(16, true),
      ece: { vendorId: view.getUint32(328, true), attrMod: view.getUint32(332, true) },
    }
  }

  /** GET_EVENT; `address`: of the response buffer. */
  async eventInto(address: bigint): Promise<number> {
    const message = body(16)
    message.setUint32(0, UcmaCommand.GET_EVENT, true)
    message.setUint16(4, 8, true)
    message.setUint16(6, EVENT_BYTES, true)
    message.setBigUint64(8, address, true)
    return (await this.step(`raw 16 ${bytesOf(message).toString('hex')}`)).result
  }

  /** Skips the events before `name`. */
  async until(name: string): Promise<UcmaEvent> {
    for (let tries = 0; tries < 20_000; tries++) {
      const event = await this.event()
      if (event?.name === name) return event
    }
    assert.fail(`the event ${name} did not arrive`)
  }
}
