/*
 * R13: the JSON schema has the whole content of the declarations. An invalid schema is refused with a message.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { schemaOf } from '../../src/cli/schema-json.ts'
import { classes } from '../../src/spec/classes.ts'
import { CallError } from '../../src/spec/errno.ts'
import { CREATE, enumeration, enumOf, method, objectClass, u32 } from '../../src/spec/schema/schema.ts'
import { declare, describe } from '../../src/uapi/object/description.ts'
import { classesOf, withoutRoles } from '../spec/schema/schema-reader.ts'

const throughJson = (schema: unknown): unknown => JSON.parse(JSON.stringify(schema))

test('all classes survive encoding and decoding as JSON', () => {
  assert.deepEqual(classesOf(throughJson(schemaOf(classes))), withoutRoles(classes))
})

test('the classes that a client declares from a description make the same JSON as the described ones', () => {
  assert.deepEqual(schemaOf(declare(describe(classes))), schemaOf(classes))
})

test('the format is that of docs/reference/schema.md', () => {
  const Colour = enumeration('colour', { RED: 1, BLUE: 2 })
  const Other = enumeration('colour', { RED: 1 << 31 })
  const cls = objectClass('lamp', 0x8000, {
    methods: {
      create: method(CREATE, {
        in: { colour: enumOf(1, Colour, 1), watts: u32(2, { max: 60 }) },
        out: { other: enumOf(64, Other) },
      }),
    },
  })
  assert.deepEqual(schemaOf([cls], { device: 'lamp0', driversOf: (_, name) => (name ? ['x'] : ['x', 'y']) }), {
    format: 1,
    device: 'lamp0',
    enumerations: { colour: { RED: 1, BLUE: 2 }, 'colour#2': { RED: 0x80000000 } },
    classes: [
      {
        name: 'lamp',
        id: 0x8000,
        identity: 'handle',
        global: false,
        drivers: ['x', 'y'],
        methods: [
          {
            name: 'create',
            call: 0,
            driverAttributes: false,
            drivers: ['x'],
            in: [
              { name: 'colour', id: 1, optional: false, type: { kind: 'enum', enumeration: 'colour', size: 1 } },
              { name: 'watts', id: 2, optional: false, type: { kind: 'u32', max: 60 } },
            ],
            out: [{ name: 'other', id: 64, optional: false, type: { kind: 'enum', enumeration: 'colour#2', size: 4 } }],
          },
        ],
      },
    ],
  })
})

type Node = Record<string, unknown>
/** Every object or list within a value. */
const nodesOf = (value: unknown): Node[] =>
  typeof value === 'object' && value !== null ? [value as Node, ...Object.values(value).flatMap(nodesOf)] : []

test('a schema with one changed part is valid, or refused with EINVAL', () => {
  const count = nodesOf(schemaOf(classes)).length
  let refused = 0
  fc.assert(
    fc.property(
      fc.nat(count - 1),
      fc.nat(20),
      fc.constantFrom<unknown>(undefined, null, -1, 1.5, 'x', [], {}, true, 7),
      (at, key, value) => {
        const copy = throughJson(schemaOf(classes))
        const node = nodesOf(copy)[at]
        const keys = Object.keys(node)
        if (keys.length > 0) node[keys[key % keys.length]] = value
        try {
          classesOf(copy)
        } catch (error) {
          assert.ok(error instanceof CallError && error.code === 'EINVAL' && /^schema: /.test(error.message))
          refused++
        }
      },
    ),
    { numRuns: 60 },
  )
  assert.ok(refused > 10, `${refused} refused`)
})

test('the message of a refusal has the path of the wrong value', () => {
  const messageAfter = (change: (nodes: Node[]) => void): string => {
    const copy = throughJson(schemaOf(classes.filter(({ name }) => name === 'pd'))) as Node
    change([copy, ...(copy.classes as Node[])])
    try {
      classesOf(copy)
      return 'accepted'
    } catch (error) {
      return (error as Error).message
    }
  }
  const set = (i: number, key: string, value: unknown) => (nodes: Node[]) => {
    nodes[i][key] = value
  }
  assert.equal(messageAfter(set(0, 'format', 2)), 'schema: format: is 2; the supported format is 1')
  assert.equal(messageAfter(set(1, 'identity', 'x')), 'schema: pd.identity: must be handle, fd or fixed')
  assert.equal(messageAfter(set(1, 'id', -1)), 'schema: pd.id: is not a number from 0 to 2^32 - 1')
  assert.equal(messageAfter(set(0, 'classes', {})), 'schema: classes: is not a list')
})
