/*
 * Messages of kubelet's API: protobufjs, with the stand-in's own declarations (test/system/kubelet.proto), reads what
 * we write and writes what we read; damaged bytes are an Error.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import protobuf from 'protobufjs'
import { type MessageTable, Services } from '../../../src/cli/kubernetes/device-plugin.ts'
import { decode, encode } from '../../../src/cli/kubernetes/messages.ts'
import { repoRoot } from '../../paths.ts'

const proto = new protobuf.Root().loadSync(join(repoRoot, 'test/system/kubelet.proto'), { keepCase: true })

/** Each table of a message with its type of protobufjs. */
const messages = Object.entries(Services).flatMap(([service, methods]) =>
  Object.entries(methods).flatMap(([name, { request, response }]) => {
    const method = proto.lookupService(service).methods[name]
    return (
      [
        [request, method.requestType],
        [response, method.responseType],
      ] as const
    ).map(([table, type]): [MessageTable, protobuf.Type] => [table, proto.lookupType(`v1beta1.${type}`)])
  }),
)

/** Any value of a table's message. Keys of entries are unique, as those of maps. */
const anyOf = (table: MessageTable): fc.Arbitrary<object> =>
  fc.record(
    Object.fromEntries(
      Object.entries(table).map(([name, { type, isList }]) => {
        const value: fc.Arbitrary<unknown> =
          type === 'text'
            ? fc.string({ unit: 'grapheme' })
            : type === 'bool'
              ? fc.boolean()
              : type === 'int'
                ? fc.integer()
                : anyOf(type)
        const isMap = typeof type === 'object' && Object.keys(type).join() === 'key,value'
        if (isMap) {
          // protobufjs makes an object of a map, and objects have numbers before other keys.
          const entries = (value as fc.Arbitrary<{ key: string }>).filter(({ key }) => !/^\d+$/.test(key))
          return [name, fc.uniqueArray(entries, { selector: ({ key }) => key })]
        }
        if (isList) return [name, fc.array(value)]
        return [name, typeof type === 'object' ? fc.option(value, { nil: undefined }) : value]
      }),
    ),
    { noNullPrototype: true },
  )

/** The value as protobufjs has it: maps are objects. */
const withMaps = (table: MessageTable, value: Readonly<Record<string, unknown>>): object =>
  Object.fromEntries(
    Object.entries(table)
      .filter(([name]) => value[name] !== undefined)
      .map(([name, { type, isList }]) => {
        const found = value[name]
        if (typeof type !== 'object') return [name, found]
        const inner = (each: unknown) => withMaps(type, each as Readonly<Record<string, unknown>>)
        if (Object.keys(type).join() === 'key,value')
          return [
            name,
            Object.fromEntries((found as { key: string; value: string }[]).map(({ key, value: v }) => [key, v])),
          ]
        return [name, isList ? (found as unknown[]).map(inner) : inner(found)]
      }),
  )

describe('messages of kubelet', () => {
  it('are read and written as protobufjs does', () => {
    assert.equal(messages.length, 12)
    for (const [table, type] of messages)
      fc.assert(
        fc.property(anyOf(table), value => {
          const bytes = encode(table, value)
          const plain = withMaps(table, value as Readonly<Record<string, unknown>>)
          const options = { defaults: true, longs: Number }
          const read = type.toObject(type.decode(bytes), options)
          assert.deepEqual(read, type.toObject(type.fromObject(plain), options))
          assert.deepEqual(decode(table, bytes), value)
          assert.deepEqual(decode(table, type.encode(type.fromObject(plain)).finish()), value)
        }),
      )
  })

  it('may have unknown fields; damaged ones throw an Error', () => {
    const [table] = messages.find(([, { name }]) => name === 'RegisterRequest')!
    const unknown = Buffer.from([0x78, 0x01, 0x7a, 0x01, 0x41, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7d, 1, 2, 3, 4])
    const bytes = encode(table, { version: 'v1beta1' })
    assert.deepEqual(decode(table, Buffer.concat([unknown, bytes])), decode(table, bytes))
    for (const damaged of [
      [0x0a],
      [0x0a, 0x05, 0x41],
      [0x08, 0x01],
      [0x0b],
      Array(11).fill(0xff),
      [0x0a, ...Array(9).fill(0xff), 1],
    ])
      assert.throws(() => decode(table, Buffer.from(damaged)), /field of|wire type|more than 10 bytes/)
    fc.assert(
      fc.property(fc.constantFrom(...messages), fc.uint8Array(), ([each], random) => {
        try {
          decode(each, random)
        } catch (error) {
          assert.match((error as Error).message, /field of|wire type|more than 10 bytes/)
        }
      }),
    )
  })
})
