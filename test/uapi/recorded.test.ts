/*
 * Codecs of Linux's dialects with recorded calls of real programs (R41, R42). test/linux/replay tests core.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { CallError, Errno, type ErrnoName, errnoName } from '../../src/spec/errno.ts'
import type { Answer, Decoded, Result } from '../../src/uapi/call.ts'
import { isAnswer } from '../../src/uapi/call.ts'
import { GET_CONTEXT_AGAIN } from '../../src/uapi/linux/caller.ts'
import { encodeLinux, type LinuxImage } from '../../src/uapi/linux/encode.ts'
import { EntryPoint, packLegacy, unpackLegacy } from '../../src/uapi/linux/legacy.ts'
import { decodeResult, encodeCall } from '../../src/uapi/object/client.ts'
import { decodeMessage } from '../../src/uapi/object/dialect.ts'
import { fixture } from '../paths.ts'
import {
  fakeMemory,
  ioctlMessage,
  ioctlMessageAfter,
  isRefusedQueryContext,
  type LoggedAttribute,
  type LoggedIoctl,
  type LoggedWrite,
  MESSAGE_AT,
  onUverbs,
  PROGRAM_LOGS,
  readAbilog,
  responseAddress,
} from './abilog.ts'
import type { FakeView } from './fake-view.ts'
import { decodeLogged, type Recorded, recordedResult, replay } from './recorded.ts'

const assertImage = (logged: LoggedIoctl | LoggedWrite, image: LinuxImage, where: string): void => {
  if (logged.kind === 'write') {
    assert.deepEqual(image.bytes, logged.data, `${where}: bytes written`)
    return
  }
  assert.deepEqual(image.bytes, ioctlMessage(logged), `${where}: message`)
  for (const { address, bytes } of image.memory) {
    const attribute: LoggedAttribute | undefined = logged.attributes.find(
      a => a.data === address && a.length === bytes.length,
    )
    assert.deepEqual(bytes, attribute?.before, `${where}: memory of attribute ${attribute?.id}`)
  }
}

/** Asserts that memory has the kernel's answer, and that an ioctl's other memory is unchanged. */
const assertAnswered = (
  logged: LoggedIoctl | LoggedWrite,
  view: FakeView,
  answer: Answer,
  recorded: Recorded,
  where: string,
): void => {
  const expected = logged.errno === 0 ? 'OK' : errnoName(logged.errno)
  assert.equal(answer.ret < 0 ? errnoName(-answer.ret) : 'OK', expected, `${where}: ${answer.reason ?? ''}`)
  if (logged.errno === 0) assert.equal(answer.ret, logged.ret, `${where}: return value`)
  for (const { descriptor, address, width } of answer.installs) {
    const bytes = new Uint8Array(width)
    new DataView(bytes.buffer).setUint32(0, recorded.numbers.get(descriptor.attribute)!, true)
    view.copyOut(address, bytes)
  }
  if (logged.kind === 'write') {
    if (logged.response !== undefined)
      assert.deepEqual(
        view.copyIn(responseAddress(logged), logged.response.length),
        logged.response,
        `${where}: response`,
      )
    return
  }
  assert.deepEqual(view.copyIn(MESSAGE_AT, ioctlMessage(logged).length), ioctlMessageAfter(logged), `${where}: message`)
  // Of attributes with one address, only the longest is compared.
  for (const { id, data, before, after } of logged.attributes)
    if (before !== undefined && logged.attributes.every(a => a.data !== data || a.length <= before.length))
      assert.deepEqual(view.copyIn(data, before.length), after ?? before, `${where}: memory of attribute ${id}`)
}

const outcomeOf = (
  decoded: Decoded,
  logged: LoggedIoctl | LoggedWrite,
): { recorded: Recorded; outcome: Result | CallError } => {
  if (logged.errno === 0) {
    const recorded = recordedResult(decoded.call, logged)
    return { recorded, outcome: recorded.result }
  }
  const code = errnoName(logged.errno) as ErrnoName
  return { recorded: { result: { out: {} }, numbers: new Map() }, outcome: new CallError(code, 'as recorded') }
}

for (const name of PROGRAM_LOGS) {
  test(`${name}: accepted calls are encoded to the same bytes`, () => {
    let calls = 0
    for (const { logged, decoded, where } of replay(name)) {
      if (isAnswer(decoded)) continue
      assertImage(logged, encodeLinux(decoded.call, decoded.legacy()!), where)
      calls++
    }
    assert.ok(calls >= 14, `only ${calls} calls`)
  })

  test(`${name}: accepted calls and their results survive the object dialect`, () => {
    for (const { logged, view, decoded, where } of replay(name)) {
      if (isAnswer(decoded)) continue
      const { call } = decoded
      const bytes = encodeCall(call, { legacy: decoded.legacy() })
      const there = decodeMessage(view, call.method.call, bytes)
      assert.deepEqual(there.call, call, `${where}: call`)
      assertImage(logged, encodeLinux(there.call, there.legacy!), where)
      if (logged.errno !== 0) continue
      const { result, numbers } = recordedResult(call, logged)
      const { message } = there.answer(result)
      const decodedResult = decodeResult(call, message)
      // The carrier fills the numbers of descriptors later.
      for (const attribute of numbers.keys()) delete decodedResult.out[attribute]
      assert.deepEqual(decodedResult.out, result.out, `${where}: result`)
      if (result.object !== undefined) assert.equal(decodedResult.object, result.object, `${where}: handle`)
    }
  })

  test(`${name}: calls are answered with the kernel's bytes`, () => {
    for (const { logged, view, decoded, where } of replay(name)) {
      if (isAnswer(decoded)) {
        assertAnswered(logged, view, decoded, { result: { out: {} }, numbers: new Map() }, where)
        continue
      }
      const { recorded, outcome } = outcomeOf(decoded, logged)
      assertAnswered(logged, view, decoded.answer(outcome), recorded, where)
    }
  })
}

test('objects.abilog: accepted calls are encoded to the same bytes, the others are refused', () => {
  const methods = new Set<string>()
  for (const { logged, decoded, where } of replay('objects.abilog')) {
    if (!isAnswer(decoded)) {
      methods.add(`${decoded.call.class.name}.${decoded.call.methodName}`)
      assertImage(logged, encodeLinux(decoded.call, decoded.legacy()!), where)
      continue
    }
    // A call that Linux accepted is refused for a missing class or type, or for the handle of a missing object.
    const code = decoded.ret < 0 ? errnoName(-decoded.ret) : 'OK'
    if (logged.errno === 0)
      assert.ok(['EOPNOTSUPP', 'EPROTONOSUPPORT', 'ENOENT'].includes(code), `${where}: ${decoded.reason}`)
    else assert.ok(decoded.ret < 0, where)
  }
  for (const method of ['cq.modify', 'rc_qp.modify', 'rc_qp.query', 'mr.create', 'device.queryGidTable', 'cq.destroy'])
    assert.ok(methods.has(method), method)
})

// ---- permitted contents of LEGACY attributes ----

test('LEGACY attributes have only response pointers and ignored fields of MODIFY_QP', () => {
  /** Nonzero bytes beyond headers and attributes, as 'class.method OFFSET'. */
  const nonzero = new Set<string>()
  for (const name of PROGRAM_LOGS)
    for (const { decoded } of replay(name)) {
      if (isAnswer(decoded)) continue
      const { call } = decoded
      const { entryPoint, parts } = unpackLegacy(decoded.legacy()!)
      const memory = entryPoint === EntryPoint.IOCTL ? parts.slice(1) : [parts[0].subarray(8)]
      for (const part of memory)
        part.forEach((byte, at) => {
          if (byte !== 0) nonzero.add(`${call.class.name}.${call.methodName} ${at}`)
        })
    }
  // mr.create, ah.create, query and postSend have a response pointer.
  const response = /^(mr\.create|ah\.create|.._qp\.(query|postSend)) [0-7]$/
  const unexpected = [...nonzero].filter(entry => !response.test(entry) && !/^.._qp\.modify /.test(entry))
  assert.deepEqual(unexpected, [])
  const modify = [...nonzero].filter(entry => entry.includes('_qp.modify ')).map(entry => Number(entry.split(' ')[1]))
  assert.ok(
    modify.every(at => at !== 64 && !(at >= 68 && at < 72)),
    'handle and mask of MODIFY_QP are arguments',
  )
})

test('a MODIFY_QP with a zeroed struct in its LEGACY attribute is the same call', () => {
  let seen = 0
  for (const { logged, view, decoded } of replay('ibv_rc_pingpong.client.abilog')) {
    if (isAnswer(decoded) || decoded.call.methodName !== 'modify' || logged.kind !== 'ioctl') continue
    const { parts } = unpackLegacy(decoded.legacy()!)
    const [message, ...memory] = parts
    const zeroed = [message, ...memory.map(part => new Uint8Array(part.length))]
    const image = encodeLinux(decoded.call, packLegacy({ entryPoint: EntryPoint.IOCTL, parts: zeroed }))
    view.memory = fakeMemory()
    view.memory.map(MESSAGE_AT, image.bytes)
    for (const { address, bytes } of image.memory) view.memory.map(address, bytes)
    const again = decodeLogged(view, logged)
    assert.ok(!isAnswer(again))
    assert.deepEqual(again.call, decoded.call)
    seen++
  }
  assert.equal(seen, 3)
})

// ---- the hand-made calls ----

/** Of the calls that Linux refuses, those that core refuses. The codec must refuse the others. */
const CORE_DECIDES = new Set([
  'QUERY_PORT 2',
  'DEALLOC_PD handle 99',
  'DEALLOC_PD handle 0 again',
  'REG_MR handle 99',
  'REG_MR iova with another page offset',
  'REG_MR remote write without local write',
  'REG_MR access 1<<19',
  'REG_MR unmapped',
  'REG_MR wraps around',
  'DEALLOC_PD in use',
  'DEREG_MR handle of a PD',
  'DEREG_MR handle 99',
  'QUERY_GID_ENTRY 1 9 (empty)',
  'PD destroy in use',
])

test('raw.abilog: hand-made calls, except QUERY_CONTEXT, get the kernel’s answers', () => {
  // The name takes the first 62 columns of a line.
  const names = readFileSync(fixture('abi', 'raw.out'), 'utf8')
    .split('\n## rdma_cm')[0]
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('##') && !line.startsWith('read()'))
    .map(line => line.slice(0, 62).trim())
  const calls = readAbilog('raw.abilog')
    .filter(onUverbs)
    .filter(call => ['ioctl', 'write', 'request'].includes(call.kind))
  assert.equal(calls.length, names.length)
  const byLine = new Map(calls.map((call, i) => [call.line, names[i]]))
  let settled = 0
  for (const { logged, view, decoded, where } of replay('raw.abilog')) {
    const title = `${where} ${byLine.get(logged.line)}`
    if (isAnswer(decoded)) {
      assertAnswered(logged, view, decoded, { result: { out: {} }, numbers: new Map() }, title)
      settled++
      continue
    }
    if (isRefusedQueryContext(logged)) {
      assert.equal(decoded.call.methodName, 'query', title)
      continue
    }
    if (byLine.get(logged.line) === 'GET_CONTEXT again') {
      // Linux reserves a descriptor before it refuses the call; the number in its answer is invalid.
      const open = { ...decoded.call, method: view.schema.classByName('device')!.methods.open }
      const { result } = recordedResult(open, logged)
      const answer = decoded.answer({ out: { numCompVectors: 2, coreSupport: 1n, ...result.out } })
      assert.equal(answer.reason, GET_CONTEXT_AGAIN.reason)
      if (logged.kind === 'write') {
        assert.equal(answer.ret, -Errno.EINVAL)
        assert.deepEqual([...view.copyIn(responseAddress(logged), 8)], [255, 255, 255, 255, 2, 0, 0, 0])
      } else assertAnswered(logged, view, answer, { result, numbers: new Map() }, title)
      continue
    }
    if (byLine.get(logged.line) === 'GET_CONTEXT response at address 0x10') {
      const answer = decoded.answer({ out: { numCompVectors: 2, coreSupport: 1n } })
      assert.equal(answer.ret, -Errno.EFAULT, title)
      continue
    }
    if (logged.errno !== 0) {
      const name = byLine.get(logged.line)!
      assert.ok(CORE_DECIDES.has(name), `${title}: the codec accepted it`)
    }
    const { recorded, outcome } = outcomeOf(decoded, logged)
    assertAnswered(logged, view, decoded.answer(outcome), recorded, title)
    assertImage(logged, encodeLinux(decoded.call, decoded.legacy()!), title)
  }
  assert.ok(settled >= 25, `the codec answered only ${settled} calls`)
})
