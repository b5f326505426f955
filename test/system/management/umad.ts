/*
 * The program test/programs/connections/umad.c, which makes calls on umad files as a test requests.
 */
import assert from 'node:assert/strict'
import { MAD_BASE_VERSION, MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import { VENDOR_OUI_OFFSET } from '../../../src/spec/wire/management.ts'
import { RegisterAgent, RegisterAgent2, UmadHeader } from '../../../src/uapi/linux/umad-layout.ts'
import { ownProgram, type Scope, type TestDaemon } from '../programs.ts'
import { StepProgram } from '../steps.ts'

export const UMAD_PROGRAM = ownProgram('umad')

/** Arguments of REGISTER_AGENT2. */
export interface Registration {
  readonly qpn?: number
  readonly mgmtClass?: number
  readonly version?: number
  readonly flags?: number
  /** Methods whose requests the agent receives. */
  readonly methods?: readonly number[]
  readonly oui?: number
  readonly rmpp?: number
}

interface Message {
  readonly agent?: number
  /** Milliseconds; 0: no response is expected. */
  readonly timeout?: number
  readonly retries?: number
  readonly gid?: Uint8Array
  readonly gidIndex?: number
  /** grh_present: 1, or 0 for a message without a global route. */
  readonly grh?: number
  /** Default: queue pair 1, LID 0. */
  readonly qpn?: number
  readonly lid?: number
  readonly data: Uint8Array
}

interface Received {
  readonly agent: number
  /** 0, or ETIMEDOUT for a request without a response. */
  readonly status: number
  /** Bytes, header included. */
  readonly length: number
  readonly qpn: number
  readonly gid: Uint8Array
  readonly data: Uint8Array
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

const maskOf = (methods: readonly number[]): Uint8Array => {
  const mask = new Uint8Array(16)
  for (const method of methods) mask[method >> 3]! |= 1 << (method & 7)
  return mask
}

/** Offsets in a MAD. TID_LOW: the lower half of the transaction ID; Linux replaces the upper half. */
export const MadOffset = { METHOD: 3, STATUS: 4, TID_LOW: 12, ATTRIBUTE: 16 } as const

/** `tid`: lower half of the transaction ID. */
export const madOf = (
  fields: {
    readonly mgmtClass: number
    readonly method: number
    readonly version?: number
    readonly attribute?: number
    readonly tid?: number
    readonly oui?: number
  },
  bytes = MAD_BYTES,
): Uint8Array => {
  const { mgmtClass, method, version = 1, attribute = 1, tid = 1, oui = 0 } = fields
  const mad = new Uint8Array(Math.max(bytes, VENDOR_OUI_OFFSET + 3))
  const view = viewOf(mad)
  mad.set([MAD_BASE_VERSION, mgmtClass, version, method])
  view.setUint32(MadOffset.TID_LOW, tid)
  view.setUint16(MadOffset.ATTRIBUTE, attribute)
  // Byte 36, before the OUI, is reserved.
  if (oui !== 0) view.setUint32(VENDOR_OUI_OFFSET - 1, oui)
  return mad.subarray(0, bytes)
}

export const ipGid = (last: number): Uint8Array => Uint8Array.of(...new Uint8Array(10), 0xff, 0xff, 127, 0, 0, last)

export class UmadProgram extends StepProgram {
  /** Bytes of the header of a message. A test sets `bytesWithoutPkey` after `registerOld`. */
  headerBytes: number = UmadHeader.bytes

  /** Starts the program with node `umadN` open; `mode`: 'wait' opens the node without O_NONBLOCK. */
  static async start(t: Scope, daemon: TestDaemon, node = 0, mode: '' | 'wait' = ''): Promise<UmadProgram> {
    const self = new UmadProgram(t, UMAD_PROGRAM, daemon)
    assert.ok((await self.open(node, mode)) >= 0)
    return self
  }

  /** Opens node `umadN` for later calls; returns its descriptor, or minus an errno. */
  async open(node: number, mode: '' | 'wait' = ''): Promise<number> {
    return (await this.step(`open /dev/infiniband/umad${node} ${mode}`)).result
  }

  /** REGISTER_AGENT2; returns the agent's number, or minus an errno. */
  async register(registration: Registration): Promise<number> {
    return (await this.registerWithFlags(registration)).agent
  }

  /** REGISTER_AGENT2; also returns the flags of the answer. */
  async registerWithFlags(registration: Registration): Promise<{ readonly agent: number; readonly flags: number }> {
    const { qpn = 1, mgmtClass = 0, version = 0, flags = 0, methods = [], oui = 0, rmpp = 0 } = registration
    const bytes = new Uint8Array(RegisterAgent2.bytes)
    const view = viewOf(bytes)
    view.setUint32(RegisterAgent2.qpn, qpn, true)
    bytes[RegisterAgent2.mgmtClass] = mgmtClass
    bytes[RegisterAgent2.classVersion] = version
    view.setUint32(RegisterAgent2.flags, flags, true)
    bytes.set(maskOf(methods), RegisterAgent2.methods)
    view.setUint32(RegisterAgent2.oui, oui, true)
    bytes[RegisterAgent2.rmppVersion] = rmpp
    const { result, view: out } = await this.step(`register2 ${hex(bytes)}`)
    const agent = result < 0 ? result : out.getUint32(RegisterAgent2.id, true)
    return { agent, flags: out.getUint32(RegisterAgent2.flags, true) }
  }

  /** REGISTER_AGENT; the file's headers then have no P_Key index. Returns the agent's number, or minus an errno. */
  async registerOld(registration: Omit<Registration, 'flags' | 'oui' | 'rmpp'>): Promise<number> {
    const { qpn = 1, mgmtClass = 0, version = 0, methods = [] } = registration
    const bytes = new Uint8Array(RegisterAgent.bytes)
    bytes.set(maskOf(methods), RegisterAgent.methods)
    bytes[RegisterAgent.qpn] = qpn
    bytes[RegisterAgent.mgmtClass] = mgmtClass
    bytes[RegisterAgent.classVersion] = version
    const { result, view } = await this.step(`register ${hex(bytes)}`)
    return result < 0 ? result : view.getUint32(RegisterAgent.id, true)
  }

  /** Writes a message; returns the bytes written, or minus an errno. */
  async send(message: Message): Promise<number> {
    const { agent = 0, timeout = 0, retries = 0, gid = ipGid(2), gidIndex = 1, grh = 1, data } = message
    const { qpn = 1, lid = 0 } = message
    const bytes = new Uint8Array(this.headerBytes + data.length)
    const view = viewOf(bytes)
    view.setUint32(UmadHeader.id, agent, true)
    view.setUint32(UmadHeader.timeout, timeout, true)
    view.setUint32(UmadHeader.retries, retries, true)
    view.setUint32(UmadHeader.qpn, qpn)
    view.setUint16(UmadHeader.lid, lid)
    bytes[UmadHeader.grhPresent] = grh
    bytes[UmadHeader.gidIndex] = gidIndex
    bytes.set(gid, UmadHeader.gid)
    bytes.set(data, this.headerBytes)
    return (await this.step(`write ${bytes.length} ${hex(bytes)}`)).result
  }

  /** Reads a message of at most `size` bytes; returns minus an errno if that fails. */
  async read(size = this.headerBytes + MAD_BYTES): Promise<Received | number> {
    const { result, view } = await this.step(`read ${size}`)
    if (result < 0) return result
    const bytes = new Uint8Array(view.buffer)
    return {
      agent: view.getUint32(UmadHeader.id, true),
      status: view.getUint32(UmadHeader.status, true),
      length: view.getUint32(UmadHeader.length, true),
      qpn: view.getUint32(UmadHeader.qpn),
      gid: bytes.slice(UmadHeader.gid, UmadHeader.gid + 16),
      data: bytes.slice(this.headerBytes),
    }
  }

  /** Waits for a message of at most `size` bytes, and reads it. */
  async receive(size?: number): Promise<Received> {
    assert.equal((await this.step('poll 30000')).result, 1)
    const received = await this.read(size)
    assert.ok(typeof received === 'object', `read: ${String(received)}`)
    return received
  }
}
