/*
 * Every call of Linux's uverbs headers (test/fixtures/abi/uverbs.txt; R41–R43) is a method of our classes, or is
 * refused with a reason.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { AttributeFlag } from '../../src/spec/classes/ids.ts'
import { classes } from '../../src/spec/classes.ts'
import { RXE_DRIVER_ID } from '../../src/spec/drivers/rxe.ts'
import { errnoName } from '../../src/spec/errno.ts'
import {
  driverAttributes,
  InvokeWrite,
  type IoctlMethod,
  ioctlMethods,
  RDMA_VERBS_IOCTL,
} from '../../src/spec/linux/ioctl.ts'
import { LinuxObject } from '../../src/spec/linux/names.ts'
import { LinuxObjectClasses } from '../../src/spec/linux/structs.ts'
import { EXTENDED, writeCommands } from '../../src/spec/linux/write.ts'
import { type Answer, type Decoded, isAnswer } from '../../src/uapi/call.ts'
import { absentCommands, absentIoctls } from '../../src/uapi/linux/absent.ts'
import { type LinuxCall, linuxCalls } from '../../src/uapi/linux/coverage.ts'
import { decodeVerbsIoctl } from '../../src/uapi/linux/ioctl.ts'
import { EntryPoint } from '../../src/uapi/linux/legacy.ts'
import { decodeWrite } from '../../src/uapi/linux/write.ts'
import { fixture, repoRoot } from '../paths.ts'
import { ARENA, AT, arena, fakeView } from './fake-view.ts'
import { assertSurvives, decode } from './round-trip.ts'

const facts = readFileSync(fixture('abi', 'uverbs.txt'), 'utf8')
  .trimEnd()
  .split('\n')
  .map(line => line.split(' '))
const factsOf = (kind: string): string[] =>
  facts.filter(([first]) => first === kind).map(words => words.slice(1).join(' '))

const commands = linuxCalls.filter(call => call.dialect === 'write')
const ioctls = linuxCalls.filter(call => call.dialect === 'ioctl')
const isMapped = ({ method, carriesCommand }: LinuxCall): boolean => method !== undefined || carriesCommand
const titleOf = ({ dialect, name }: LinuxCall): string => `${dialect} ${name}`

describe('names and numbers', () => {
  it('of every command agree with the headers', () => {
    const plain = commands.filter(({ number }) => number < EXTENDED)
    const extended = commands.filter(({ number }) => number >= EXTENDED)
    assert.deepEqual(
      plain.map(({ name, number }) => `${number} ${name}`),
      factsOf('write'),
    )
    assert.deepEqual(
      extended.map(({ name, number }) => `${number - EXTENDED} ${name.replace(/^EX_/, '')}`),
      factsOf('extended'),
    )
  })

  it('of every object, method and attribute agree with the headers', () => {
    assert.deepEqual(
      Object.entries(LinuxObject).map(([name, number]) => `${number} ${name}`),
      factsOf('object'),
    )
    const methods = ioctls.map(({ name, methodNumber }) => name.replace('.', ` ${methodNumber} `))
    assert.deepEqual([...methods].sort(), factsOf('method').sort())
    const attributes = ioctls.flatMap(({ name, attributes }) =>
      attributes.map((attribute, id) => `${name.replace('.', ' ')} ${id} ${attribute}`),
    )
    // Lines with `*` are attributes of drivers, which every method can have: `* * ID …`.
    const isOfDriver = (line: string): boolean => line.startsWith('*')
    const lines = factsOf('attribute')
    assert.deepEqual(attributes.sort(), lines.filter(line => !isOfDriver(line)).sort())
    assert.deepEqual(
      driverAttributes.map(({ id }) => id),
      lines.filter(isOfDriver).map(line => Number(line.split(' ')[2])),
    )
  })
})

describe('every call', () => {
  it('is either a method of existing classes, or absent for a reason', () => {
    for (const call of linuxCalls) {
      assert.notEqual(isMapped(call), call.absent !== undefined, titleOf(call))
      for (const name of call.classes) {
        const cls = classes.find(one => one.name === name)
        assert.ok(cls?.methods[call.method!] !== undefined, `${titleOf(call)}: ${name}.${call.method}`)
      }
      assert.equal(call.classes.length > 0, call.method !== undefined, titleOf(call))
    }
  })

  it('of our tables is a call of Linux', () => {
    const names = new Set(linuxCalls.map(({ name }) => name))
    for (const name of [...Object.keys(absentCommands), ...Object.keys(absentIoctls)]) assert.ok(names.has(name), name)
    const numbers = new Set(
      linuxCalls.map(({ dialect, number, methodNumber }) => `${dialect} ${number} ${methodNumber}`),
    )
    for (const { number, isExtended } of writeCommands)
      assert.ok(numbers.has(`write ${number + (isExtended ? EXTENDED : 0)} undefined`), `command ${number}`)
    for (const { object, number } of ioctlMethods) assert.ok(numbers.has(`ioctl ${object} ${number}`))
  })

  it('that is an ioctl takes every attribute of Linux, by its number', () => {
    for (const { number, methodNumber, attributes, name } of ioctls.filter(isMapped)) {
      const found = ioctlMethods.find(method => method.object === number && method.number === methodNumber)
      assert.deepEqual(
        found?.attributes.map(({ id }) => id).sort((a, b) => a - b),
        attributes.map((_, id) => id),
        name,
      )
    }
  })
})

// ---- absent calls ----

const u16 = (n: number): number[] => [n & 0xff, n >> 8]
const u32 = (n: number): number[] => [...u16(n & 0xffff), ...u16(n >>> 16)]
/** struct ib_uverbs_attr. */
const attribute = (id: number, length: number, data: number): number[] => [
  ...u16(id),
  ...u16(length),
  ...u16(AttributeFlag.MANDATORY),
  ...u16(0),
  ...u32(data),
  ...u32(0),
]
/** struct ib_uverbs_ioctl_hdr, and the attributes. */
const message = (object: number, method: number, ...attributes: readonly number[][]): number[] => [
  ...u16(24 + 16 * attributes.length),
  ...u16(object),
  ...u16(method),
  ...u16(attributes.length),
  ...u32(0),
  ...u32(0),
  ...u32(RXE_DRIVER_ID),
  ...u32(0),
  ...attributes.flat(),
]

/** struct ib_uverbs_cmd_hdr of a command without arguments: its length is 2 words. */
const writeHeader = (command: number): number[] => [...u32(command), ...u16(2), ...u16(0)]

const { DEVICE } = LinuxObject
/** The handle of the protection domain. */
const PD = 7

/** A handle, a pointer to data of more than 8 bytes, or zero. */
const validData = (kind: string, length: number): number => {
  if (kind === 'handle') return PD
  return length > 8 ? Number(ARENA) : 0
}
/** All mandatory attributes of a method, with valid values. */
const mandatoryOf = ({ attributes }: IoctlMethod): number[][] =>
  attributes.filter(({ mandatory }) => mandatory).map(({ id, kind, min }) => attribute(id, min, validData(kind, min)))

type Decode = (bytes: readonly number[]) => Decoded | Answer
const viewOf = (bytes: readonly number[]) => {
  const memory = arena()
  memory.map(AT, Uint8Array.from(bytes))
  return fakeView(memory, new Map([[PD, 'pd']]))
}
const byWrite: Decode = bytes => decodeWrite(viewOf(bytes), AT, bytes.length)
const byIoctl: Decode = bytes => decodeVerbsIoctl(viewOf(bytes), RDMA_VERBS_IOCTL, AT)

const assertRefused = (decoded: Decoded | Answer, code: string, { name, absent }: LinuxCall): void => {
  assert.ok(isAnswer(decoded), name)
  assert.equal(errnoName(-decoded.ret), code, name)
  assert.equal(decoded.attempt, name.split('.').at(-1))
  assert.ok(String(decoded.reason).endsWith(absent!), String(decoded.reason))
}

describe('absent calls', () => {
  const WRITE_CMD = InvokeWrite.WRITE_CMD
  for (const call of linuxCalls.filter(({ absent }) => absent !== undefined))
    it(`${titleOf(call)} is refused with the errno of Linux and a reason`, () => {
      if (call.dialect === 'write') {
        assertRefused(byWrite(writeHeader(call.number)), 'EOPNOTSUPP', call)
        const core = attribute(InvokeWrite.CORE_IN, 4, 0)
        const INVOKE_WRITE = 0
        const invoked = byIoctl(message(DEVICE, INVOKE_WRITE, core, attribute(WRITE_CMD, 8, call.number)))
        assertRefused(invoked, 'EOPNOTSUPP', call)
      } else {
        const known = ioctlMethods.find(({ object, number }) => object === call.number && number === call.methodNumber)
        const attributes = known === undefined ? [] : mandatoryOf(known)
        const decoded = byIoctl(message(call.number, call.methodNumber!, ...attributes))
        assertRefused(decoded, known ? 'EOPNOTSUPP' : 'EPROTONOSUPPORT', call)
      }
    })

  it('refuses numbers that Linux 7.3 does not use', () => {
    for (const number of [41, 200, EXTENDED + 58, EXTENDED + 2]) {
      const decoded = byWrite(writeHeader(number))
      assert.ok(isAnswer(decoded) && errnoName(-decoded.ret) === 'EOPNOTSUPP')
      assert.match(String(decoded.reason), /^command 0x[0-9a-f]+: Linux 7.3 has no such command$/)
    }
    const decoded = byIoctl(message(20, 0))
    assert.ok(isAnswer(decoded) && errnoName(-decoded.ret) === 'EPROTONOSUPPORT')
    assert.equal(String(decoded.reason), 'object 20 method 0: the core of Linux 7.3 has no such method')
  })
})

// ---- lists whose layout is code ----

describe('INFO_HANDLES and QUERY_GID_TABLE', () => {
  const [INFO_HANDLES, QUERY_GID_TABLE] = [1, 5]
  const assertMessageSurvives = (bytes: readonly number[], name: string): void => {
    const view = viewOf(bytes)
    const image = { entryPoint: EntryPoint.IOCTL, bytes: Uint8Array.from(bytes), memory: [] }
    const decoded = decode(view, image)
    assert.ok(!isAnswer(decoded), String((decoded as Answer).reason))
    assert.equal(decoded.call.methodName, name)
    assertSurvives(view, decoded, image)
  }
  const ADDRESS = Number(ARENA)

  it('survive the object dialect, for every object and several list sizes', () => {
    for (const object of Object.keys(LinuxObjectClasses))
      for (const count of [1, 7, 500]) {
        const [objectId, totalHandles] = [attribute(0, 8, Number(object)), attribute(1, 4, ADDRESS)]
        const handles = attribute(2, 4 * count, ADDRESS + 8)
        assertMessageSurvives(message(DEVICE, INFO_HANDLES, objectId, totalHandles, handles), 'queryHandles')
      }
    for (const size of [24, 32, 40])
      for (const count of [1, 9, 100]) {
        const [entrySize, flags] = [attribute(0, 8, size), attribute(1, 4, 0)]
        const [entries, entryCount] = [attribute(2, size * count, ADDRESS + 8), attribute(3, 8, ADDRESS)]
        const bytes = message(DEVICE, QUERY_GID_TABLE, entrySize, flags, entries, entryCount)
        assertMessageSurvives(bytes, 'queryGidTable')
      }
  })
})

// ---- one implementation ----

const sourcesBelow = (folder: string): string[] =>
  readdirSync(join(repoRoot, folder), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts'))
    .map(name => join(folder, name))

describe('one implementation', () => {
  it('no method of core or of a driver depends on a dialect of Linux', () => {
    for (const path of [...sourcesBelow('src/core'), ...sourcesBelow('src/drivers')]) {
      const source = readFileSync(join(repoRoot, path), 'utf8')
      assert.doesNotMatch(source, /from '[./]*(?:uapi|spec)\/linux\//, path)
    }
  })
})
