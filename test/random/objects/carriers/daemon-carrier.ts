/*
 * Carrier of the model test for a daemon. Each process is a session in the object dialect; the session of a forked
 * child attaches to the parent's contexts.
 */
import assert from 'node:assert/strict'
import { openSync } from 'node:fs'
import type { TestContext } from 'node:test'
import type { Daemon } from '../../../../src/daemon/daemon.ts'
import { closeProcess, openProcess, type ProcessHandle, pidfdGetfd } from '../../../../src/host/memory/process.ts'
import { close, recvBytes } from '../../../../src/host/net/sockets.ts'
import { DeviceClass } from '../../../../src/spec/classes/device/device.ts'
import { Interface } from '../../../../src/spec/classes/device/interface.ts'
import { errnoName } from '../../../../src/spec/errno.ts'
import type { AnyValues, ObjectClass } from '../../../../src/spec/schema/schema.ts'
import type { Call } from '../../../../src/uapi/call.ts'
import { decodeResult, type EncodeOptions, encodeCall } from '../../../../src/uapi/object/client.ts'
import { ioctlRequest } from '../../../../src/uapi/object/format.ts'
import { messageBuffer, writeRequest } from '../../../../src/uapi/session-codec.ts'
import type { ListedDevice } from '../../../../src/uapi/tool.ts'
import { type Client, dial, eventually, type ReceivedReply } from '../../../daemon/client.ts'
import { ipv4 } from '../../../drivers/rxe/machine.ts'
import { onErrorOf } from '../random-calls.ts'
import { countsOf, type Opening } from '../reference.ts'
import { type Answer, type Facts, OK, type Op, type Process } from './carrier.ts'
import { chainAnswer, chainBytes } from './core-carrier.ts'

/** Offsets in a process's memory. */
const MESSAGE_AT = 0x2000
/** Entries of a chain, which its results overwrite. */
const CHAIN_AT = 0x4000
const CHAIN_BYTES = 0x4000
/** The memory to register. */
const REGION_AT = 0x8000

interface OpenContext {
  readonly context: number
  /** The memory file and the doorbell socket. */
  readonly fds: readonly number[]
}
interface ProcessState {
  readonly client: Client
  readonly openings: Map<Opening, OpenContext>
}

/** The last byte of a device's IPv4 address. */
const lastAddressByte = (name: string): number => 1 + Number(name.at(-1))

/** `daemon` must already have the devices of the test. */
export const daemonCarrier = async (
  t: TestContext,
  daemon: Daemon,
): Promise<{ facts: Facts; perform(op: Op): Promise<Answer> }> => {
  const control = dial(t, daemon)
  await control.hello()
  const self = openProcess(process.pid) as ProcessHandle
  const files = ['/dev/null', '/dev/zero', '/proc/self/stat'].map(path => openSync(path, 'r'))
  t.after(() => {
    closeProcess(self)
    for (const fd of files) close(fd)
  })
  const outgoing = messageBuffer()
  const processes = new Map<Process, ProcessState>()
  const nodes = new Map<string, number>()
  // the counts that the daemon must report
  let descriptors = 0
  let contexts = 0

  const stateOf = (process: Process): ProcessState => processes.get(process) as ProcessState
  const copyOf = (fd: number): number => {
    const copy = pidfdGetfd(self, fd)
    assert.ok(copy >= 0)
    return copy
  }
  /** Waits until the daemon, which notices closed descriptors later, reports the expected counts. */
  const settle = () => eventually(control, stat => stat.descriptors === descriptors && stat.contexts === contexts)

  const connect = async (process: Process): Promise<ProcessState> => {
    const client = dial(t, daemon)
    await client.hello()
    const state = { client, openings: new Map<Opening, OpenContext>() }
    processes.set(process, state)
    return state
  }

  /** `subject` is the context or the descriptor on which the call is made. */
  const sendCall = async (
    client: Client,
    subject: { readonly context?: number; readonly fd?: number },
    call: Call,
    options: EncodeOptions = {},
  ): Promise<ReceivedReply & { message: Uint8Array }> => {
    const { memory } = client
    const bytes = encodeCall(call, options)
    memory.bytes.set(bytes, MESSAGE_AT)
    const length = writeRequest(outgoing, 'IOCTL', subject, {
      request: ioctlRequest(call.method.call),
      argument: BigInt(memory.address + MESSAGE_AT),
    })
    assert.ok(client.send(outgoing.bytes.slice(0, length)) > 0)
    const reply = await client.next()
    assert.ok(reply, 'the session ended before the answer')
    return { ...reply, message: memory.bytes.slice(MESSAGE_AT, MESSAGE_AT + bytes.length) }
  }

  const callOf = (cls: ObjectClass, methodName: string, object: number, args: AnyValues): Call => ({
    class: cls,
    methodName,
    method: cls.methods[methodName],
    object,
    args,
  })

  const perform = async (op: Op): Promise<Answer> => {
    switch (op.do) {
      case 'start':
        await connect(op.process)
        return OK
      case 'fork': {
        const child = await connect(op.child)
        for (const opening of op.parent.openings) {
          const [file] = (stateOf(op.parent).openings.get(opening) as OpenContext).fds
          const copy = copyOf(file)
          const { error, context, descriptors: doorbells } = await child.client.attach(copy)
          assert.equal(error, 0)
          child.openings.set(opening, { context, fds: [copy, ...doorbells] })
        }
        return { ...OK, fds: [...op.parent.fds.keys()].map(copyOf) }
      }
      case 'end':
        stateOf(op.process).client.close()
        processes.delete(op.process)
        return OK
      case 'open': {
        const { client, openings } = stateOf(op.process)
        const { error, context, descriptors: fds } = await client.open(nodes.get(op.opening.device.name))
        assert.equal(error, 0)
        openings.set(op.opening, { context, fds })
        contexts++
        const { ret } = await sendCall(client, { context }, callOf(DeviceClass, 'open', 0, {}))
        assert.equal(ret, 0n)
        return OK
      }
      case 'close': {
        const { openings } = stateOf(op.process)
        for (const fd of (openings.get(op.opening) as OpenContext).fds) close(fd)
        openings.delete(op.opening)
        if (op.opening.holders === 0) contexts--
        await settle()
        return OK
      }
      case 'copy':
        return { ...OK, fds: [copyOf(op.fd)] }
      case 'closeFd':
        close(op.fd)
        if (op.isLast) descriptors--
        await settle()
        return OK
      case 'call': {
        const { client, openings } = stateOf(op.process)
        const call = callOf(op.cls, op.methodName, op.object, op.args)
        const subject = op.fd === undefined ? contextOf(openings, op.opening) : { fd: op.fd }
        const { ret, message, descriptors: fds } = await sendCall(client, subject, call)
        if (ret < 0n) return { code: errnoName(-Number(ret)), out: {}, fds }
        descriptors += fds.length
        // the daemon raises the events of the change before it answers `stat`
        if (op.methodName === 'modify') await client.stat()
        return { code: 'ok', ...decodeResult(call, message), fds }
      }
      case 'chain': {
        const { client, openings } = stateOf(op.process)
        const { memory } = client
        const entries = chainBytes(op.entries)
        memory.bytes.set(entries, CHAIN_AT)
        const at = BigInt(memory.address + CHAIN_AT)
        const call = callOf(Interface, 'chain', 0, { entries, onError: onErrorOf(op.undo) })
        const {
          ret,
          message,
          descriptors: fds,
        } = await sendCall(client, contextOf(openings, op.opening), call, {
          inputAddresses: { entries: at },
          outputBuffers: { results: { address: at, length: CHAIN_BYTES } },
        })
        if (ret < 0n) return { code: errnoName(-Number(ret)), out: {}, fds }
        descriptors += fds.length
        const { out } = decodeResult(call, message)
        const results = memory.bytes.slice(CHAIN_AT, CHAIN_AT + entries.length)
        await client.stat()
        return { code: 'ok', out: chainAnswer(op.entries, results, out), fds }
      }
      case 'read': {
        const bytes = new Uint8Array(64)
        const length = recvBytes(op.fd, bytes)
        if (length <= 0) return { ...OK, code: length === 0 ? 'EIO' : errnoName(-length) }
        return { ...OK, out: { bytes: bytes.slice(0, length) } }
      }
      case 'add': {
        const { name } = op.device
        const config = await control.tool({ kind: 'config' })
        assert.ok('config' in config)
        let devices: readonly ListedDevice[] = config.config.devices
        if (!devices.some(device => device.name === name)) {
          const spec = { name, address: `127.0.0.${lastAddressByte(name)}` }
          const added = await control.tool({ kind: 'device', add: spec })
          assert.ok('devices' in added, JSON.stringify(added))
          devices = added.devices
        }
        nodes.set(name, devices.find(device => device.name === name)!.node)
        return OK
      }
      case 'remove': {
        const removed = await control.tool({ kind: 'device', remove: op.device.name })
        assert.ok('devices' in removed, JSON.stringify(removed))
        return OK
      }
      case 'compare': {
        const { devices } = await settle()
        for (const device of op.devices) {
          const found = devices.find(({ name }) => name === device.name)
          assert.deepEqual(found?.objects, countsOf(device))
        }
        return OK
      }
      default:
        throw new Error(`a daemon raises no device events on request: ${op.do}`)
    }
  }
  const facts: Facts = {
    raisesEvents: false,
    files,
    address: process => BigInt(stateOf(process).client.memory.address + REGION_AT),
    gid: ({ name }) => ipv4(127, 0, 0, lastAddressByte(name)),
  }
  return { facts, perform }
}

const contextOf = (openings: ReadonlyMap<Opening, OpenContext>, opening: Opening) => ({
  context: (openings.get(opening) as OpenContext).context,
})
