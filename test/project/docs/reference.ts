/*
 * Generates docs/reference/classes from the declarations and their comments (R13).
 */
import { callText, declaredSchema, describedDevices, namedBy, typeText } from '../../../src/cli/commands/schema.ts'
import type { JsonAttribute, JsonClass, JsonField, JsonMethod, JsonType } from '../../../src/cli/schema-json.ts'
import { schemaOf } from '../../../src/cli/schema-json.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { type QpStateName, type QpTypeName, qpTransitions, type Transition } from '../../../src/spec/qp-states.ts'
import { CREATE, CREATE_FD, DESTROY } from '../../../src/spec/schema/schema.ts'
import { linuxCalls } from '../../../src/uapi/linux/coverage.ts'
import { type ClassComments, commentOfEnumeration, commentsOf } from './comments.ts'

const code = (text: string): string => `\`${text}\``
const row = (...cells: readonly string[]): string => `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string[] =>
  rows.length === 0 ? [] : [row(...head), `|${'---|'.repeat(head.length)}`, ...rows.map(cells => row(...cells)), '']

const COLUMNS = 118
const wrapped = (paragraphs: readonly string[]): string[] =>
  paragraphs.flatMap(paragraph => {
    const lines = ['']
    for (const line of paragraph.split('\n')) {
      if (lines[lines.length - 1] !== '') lines.push('')
      for (const word of line.split(' ')) {
        const last = lines[lines.length - 1]
        if (last !== '' && last.length + 1 + word.length > COLUMNS)
          lines.push(line.startsWith('- ') ? `  ${word}` : word)
        else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
      }
    }
    return [...lines, '']
  })

/** Ids from here belong to drivers. */
const FIRST_DRIVER_ID = 0x8000
const idText = (id: number): string => (id < FIRST_DRIVER_ID ? String(id) : `0x${id.toString(16)}`)
const driversText = (drivers: readonly string[]): string =>
  drivers.length === 0 ? 'none: calls answer EOPNOTSUPP' : drivers.join(', ')

/** A type as text, with links to enumerations and classes. */
const linked = (type: JsonType): string => {
  const text = typeText(type)
  if (type.kind === 'enum' || type.kind === 'flags')
    return text.replace(type.enumeration, `[${type.enumeration}](enumerations.md#${type.enumeration})`)
  return type.kind === 'ref' || type.kind === 'fd'
    ? text.replace(type.class, `[${type.class}](${type.class}.md)`)
    : text
}

// ---- methods ----

/** A driver's attributes of a method of a common class. */
interface Addition {
  readonly driver: string
  readonly method: JsonMethod
}

const fieldRows = (fields: readonly JsonField[], comments: ClassComments, path = '', base = 0): string[][] =>
  fields.flatMap(({ name, offset, type }) =>
    type.kind === 'record'
      ? fieldRows(type.fields, comments, `${path}${name}.`, base + offset)
      : [[String(base + offset), code(path + name), linked(type), comments.field(name) ?? '']],
  )

const attributeRows = (
  direction: 'in' | 'out',
  method: JsonMethod,
  comments: ClassComments,
  additions: readonly Addition[],
): string[][] => {
  const own = method[direction].map(attribute => ({
    attribute,
    comment: comments.attribute(method.name, attribute.name) ?? '',
  }))
  const added = additions.flatMap(({ driver, method: driverMethod }) =>
    driverMethod[direction]
      .filter(({ id }) => id >= FIRST_DRIVER_ID)
      .map(attribute => ({ attribute, comment: `of driver ${driver}` })),
  )
  return [...own, ...added].map(({ attribute: { name, id, optional, type }, comment }) => [
    direction,
    code(name),
    idText(id),
    linked(type),
    optional ? 'optional' : '',
    comment,
  ])
}

const structs = (method: JsonMethod, comments: ClassComments, additions: readonly Addition[]): string[] => {
  const own: readonly JsonAttribute[] = [...method.in, ...method.out]
  const added = additions.flatMap(({ method: driverMethod }) =>
    [...driverMethod.in, ...driverMethod.out].filter(({ id }) => id >= FIRST_DRIVER_ID),
  )
  const all = [...own, ...added].filter(({ name, type }, i, list) => {
    const same = (one: JsonAttribute): boolean => one.name === name && JSON.stringify(one.type) === JSON.stringify(type)
    return list.findIndex(same) === i
  })
  return all.flatMap(({ name, type }) =>
    type.kind === 'record' || type.kind === 'list'
      ? [
          `${type.kind === 'record' ? 'Fields of' : 'Fields of each record of'} ${code(name)}:`,
          '',
          ...table(['offset', 'field', 'type', ''], fieldRows(type.fields, comments)),
        ]
      : [],
  )
}

/** Errors that follow from the declaration, without those of every call. */
const errorsOf = (cls: JsonClass, { call, in: inputs, out: outputs }: JsonMethod): string[] => {
  const isCreation = call === CREATE || call === CREATE_FD
  const references = inputs.flatMap(({ name, type }) => (type.kind === 'ref' ? [code(name)] : []))
  const descriptors = inputs.flatMap(({ name, type }) => (type.kind === 'fd' ? [code(name)] : []))
  const limitedInputs = inputs.filter(
    ({ type }) => 'min' in type || 'max' in type || type.kind === 'enum' || type.kind === 'flags',
  )
  const isOnHandle = cls.identity === 'handle' && !isCreation
  const isOnDescriptor = cls.identity === 'fd' && !isCreation
  const objects = [...(isOnHandle ? ['the object'] : []), ...references].join(' or ')
  const fds = [...(isOnDescriptor ? ['the descriptor'] : []), ...descriptors].join(' or ')
  const errors: string[] = []
  if (objects !== '') errors.push(`ENOENT: ${objects} does not exist`, `EINVAL: ${objects} is of another class`)
  if (cls.identity === 'fixed') errors.push(`EINVAL: there is no such ${cls.name}`)
  if (fds !== '') errors.push(`EBADF: ${fds} does not belong to this context`)
  if (limitedInputs.length > 0)
    errors.push(`EINVAL: ${limitedInputs.map(({ name }) => code(name)).join(', ')} out of limits`)
  if (inputs.some(({ type }) => type.kind === 'record'))
    errors.push('E2BIG: a record is longer than known and its rest is not zero')
  if (call === DESTROY) errors.push('EBUSY: other objects or calls still use it')
  if (isCreation && cls.identity === 'handle')
    errors.push('ENOMEM: the device has its maximum of objects of this class, or the user their share')
  if (outputs.length > 0) errors.push('ENOSPC: too little room for an output')
  return errors
}

const linuxNamesOf = (className: string, method: string): string[] =>
  linuxCalls
    .filter(call => call.method === method && call.classes.includes(className))
    .map(({ dialect, name }) => `${dialect} ${code(name)}`)

const methodPart = (
  cls: JsonClass,
  method: JsonMethod,
  comments: ClassComments,
  additions: readonly Addition[],
): string[] => {
  const names = linuxNamesOf(cls.name, method.name)
  const facts = [
    `Call ${callText(method.call)}.`,
    ...(method.drivers?.join() === cls.drivers?.join() ? [] : [`Drivers: ${driversText(method.drivers ?? [])}.`]),
    ...(names.length === 0 ? ['Linux has no such call.'] : [`In Linux: ${names.join(', ')}.`]),
    ...(method.needs === 'NET_RAW' ? ['The caller must have CAP_NET_RAW; else EPERM.'] : []),
    ...(method.needs === 'RAW_PACKETS'
      ? ["The caller must have CAP_NET_RAW, or be of the daemon's own user; else EPERM."]
      : []),
    ...(method.undoable ? ['The entries of a chain with UNDO may name any object.'] : []),
    ...(method.driverAttributes ? ['A driver may have attributes of its own.'] : []),
  ]
  const rows = [
    ...attributeRows('in', method, comments, additions),
    ...attributeRows('out', method, comments, additions),
  ]
  const errors = errorsOf(cls, method)
  return [
    `## ${method.name}`,
    '',
    ...wrapped([facts.join(' '), ...(comments.method(method.name) ?? [])]),
    ...(rows.length === 0
      ? ['It has no arguments and no results.', '']
      : table(['', 'attribute', 'id', 'type', '', ''], rows)),
    ...structs(method, comments, additions),
    ...(errors.length === 0
      ? []
      : [
          'Errors, in addition to those of every call:',
          '',
          ...wrapped([errors.map(error => `- ${error}`).join('\n')]),
        ]),
  ]
}

// ---- state machines ----

const typeOfClass = (name: string): QpTypeName | undefined => {
  const type = name.replace(/_qp$/, '').toUpperCase()
  return type in qpTransitions && name.endsWith('_qp') ? (type as QpTypeName) : undefined
}

const states = Object.keys(QpState.values) as QpStateName[]

const transitionsOf = (type: QpTypeName): [QpStateName, QpStateName, Transition][] => {
  const rows: Partial<Record<QpStateName, Partial<Record<QpStateName, Transition>>>> = qpTransitions[type]
  return states.flatMap(from =>
    states.flatMap((to): [QpStateName, QpStateName, Transition][] => {
      const transition = rows[from]?.[to]
      return transition === undefined ? [] : [[from, to, transition]]
    }),
  )
}

const stateDiagram = (type: QpTypeName): string[] => {
  const all = transitionsOf(type)
  const names = (attributes: readonly string[]): string => attributes.map(code).join(', ')
  return [
    '## States',
    '',
    '```mermaid',
    'stateDiagram-v2',
    '    [*] --> RESET: create',
    ...all.map(([from, to]) => `    ${from} --> ${to}`),
    '```',
    '',
    ...wrapped([
      'By `modify`; from any state it may also go to RESET or ERR, which take no attributes. The device moves it to ERR, or to SQE where that state exists, when a request fails.',
    ]),
    ...table(
      ['from', 'to', 'needs', 'takes besides'],
      all.map(([from, to, { required, optional }]) => [from, to, names(required), names(optional)]),
    ),
  ]
}

// ---- pages ----

const classPage = (cls: JsonClass, additionsOf: (method: string) => readonly Addition[]): string[] => {
  const comments = commentsOf(cls.name)
  const type = typeOfClass(cls.name)
  return [
    `# ${code(cls.name)}`,
    '',
    ...wrapped(comments.opening),
    ...table(
      ['', ''],
      [
        ['class id', idText(cls.id)],
        ['objects', namedBy(cls.identity)],
        ...(cls.global ? [['global', 'it works on the system-wide device too']] : []),
        ['drivers', cls.name === 'system' ? 'the system-wide device' : driversText(cls.drivers ?? [])],
      ],
    ),
    ...(type === undefined ? [] : stateDiagram(type)),
    ...cls.methods.flatMap(method => methodPart(cls, method, comments, additionsOf(method.name))),
  ]
}

const enumerationsPage = (enumerations: Readonly<Record<string, Readonly<Record<string, number>>>>): string[] => [
  '# Enumerations and flags',
  '',
  ...Object.keys(enumerations)
    .sort()
    .flatMap(name => {
      const comment = commentOfEnumeration(name)
      const value = (number: number): string => (number < 1024 ? String(number) : `0x${number.toString(16)}`)
      return [
        `## ${name}`,
        '',
        ...wrapped(comment === undefined ? [] : [comment]),
        ...table(
          ['value', 'name'],
          Object.entries(enumerations[name]).map(([word, number]) => [value(number), code(word)]),
        ),
      ]
    }),
]

const INDEX = `# Reference

Every class of the object model: its methods with inputs and outputs, their types, limits and errors, and the equivalent
calls of Linux. \`npm run docs\` generates these pages from the declarations in \`src/spec/\` and their comments.
\`userdma schema\` prints the same data, also of a device, and as JSON ([schema](../schema.md)). [Linux's
calls](../linux-abi.md) has the other direction.

Attributes that are not marked optional are required: without them a call is EINVAL. Sizes and offsets are in bytes.

## Errors of every call

| error | when |
|---|---|
| EOPNOTSUPP | the device has no such class or method |
| EINVAL | the message is malformed, an attribute is missing or its value is invalid; the context is not open yet |
| EPROTONOSUPPORT | the device does not know a mandatory attribute |
| EFAULT | the message points to memory that the caller does not have |
| EIO | the device was removed, or the context is closed |

In the library each is an \`RdmaError\` with the reason.

## Classes
`

/** The pages by file name. */
export const referencePages = (): ReadonlyMap<string, string> => {
  const { classes, enumerations } = declaredSchema()
  const devices = describedDevices().map(({ driver, sharedTable }) => ({
    driver: driver.name,
    classes: schemaOf([...sharedTable.byName.values()].map(one => one.class)).classes,
  }))
  const additions = (cls: string) => (name: string) =>
    devices.flatMap(({ driver, classes: driverClasses }): Addition[] => {
      const method = driverClasses
        .find(one => one.name === cls && one.id < FIRST_DRIVER_ID)
        ?.methods.find(one => one.name === name)
      return method === undefined ? [] : [{ driver, method }]
    })
  const textOf = (lines: readonly string[]): string =>
    `${lines
      .join('\n')
      .replace(/\n{3,}/g, '\n\n')
      .trimEnd()}\n`
  const pages = new Map<string, string>()
  for (const cls of classes) pages.set(`${cls.name}.md`, textOf(classPage(cls, additions(cls.name))))
  pages.set('enumerations.md', textOf(enumerationsPage(enumerations)))
  const rows = classes.map(cls => [
    `[${cls.name}](${cls.name}.md)`,
    idText(cls.id),
    namedBy(cls.identity),
    cls.methods.map(({ name }) => name).join(', '),
    cls.name === 'system' ? 'the system-wide device' : (cls.drivers ?? []).join(', ') || 'none',
  ])
  const index = [
    INDEX,
    ...table(['class', 'id', 'objects', 'methods', 'drivers'], rows),
    '[Enumerations and flags](enumerations.md)',
  ]
  pages.set('README.md', textOf(index))
  return pages
}
