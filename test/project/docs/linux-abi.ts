/*
 * Generates docs/reference/linux-abi.md from the tables of spec/linux, and from the recorded answers of Linux's rxe
 * (every-call.ts).
 */
import { type IoctlAttribute, ioctlMethods } from '../../../src/spec/linux/ioctl.ts'
import { type NldevCommand, NldevCommands } from '../../../src/spec/linux/nldev.ts'
import { absentUcmaCommands, ucmaCommands } from '../../../src/spec/linux/ucma.ts'
import { EXTENDED } from '../../../src/spec/linux/write.ts'
import { type LinuxCall, linuxCalls } from '../../../src/uapi/linux/coverage.ts'
import { umadCalls } from '../../../src/uapi/linux/umad-layout.ts'
import { departures, onLinux } from '../../every-call.ts'
import { additionKinds, additions, methodSince } from './linux-additions.ts'

/** Whether the soft device has a method. */
type HasMethod = (className: string, method: string) => boolean

const code = (text: string): string => `\`${text}\``
const row = (...cells: readonly string[]): string => `| ${cells.join(' | ')} |`
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string[] => [
  row(...head),
  `|${'---|'.repeat(head.length)}`,
  ...rows.map(cells => row(...cells)),
]

const methodsOf = (classes: readonly string[], method: string): string =>
  classes.map(name => code(`${name}.${method}`)).join(', ')

const meaning = (call: LinuxCall, hasMethod: HasMethod): [effect: string, device: string] => {
  const { classes, method, carriesCommand, absent } = call
  if (carriesCommand) return ['any command', 'yes']
  if (method === undefined) {
    // ADVISE_MR has known attributes (spec/linux/ioctl.ts), although no device implements it
    const isKnownIoctl = ioctlMethods.some(
      ({ object, number }) => object === call.number && number === call.methodNumber,
    )
    return [`none: ${absent}`, call.dialect === 'write' || isKnownIoctl ? 'EOPNOTSUPP' : 'EPROTONOSUPPORT']
  }
  const lacking = classes.filter(name => !hasMethod(name, method))
  if (lacking.length === 0) return [methodsOf(classes, method), 'yes']
  return [methodsOf(classes, method), lacking.length === classes.length ? 'no' : `no ${lacking.join(', ')}`]
}

const recorded = new Map(onLinux.map(line => line.split(' = ') as [string, string]))

/**
 * 'yes', or the errno that says that Linux's rxe lacks the call. Recorded from calls without arguments; ADVISE_MR with
 * arguments, because Linux checks them first.
 */
const linuxHas = ({ dialect, name, number, methodNumber }: LinuxCall): string => {
  const emptyCall =
    dialect === 'ioctl'
      ? `ioctl ${number}.${methodNumber} without attributes`
      : `command ${number < EXTENDED ? number : `ex ${number - EXTENDED}`} of zeros`
  const errno = recorded.get(name.endsWith('.ADVISE_MR') ? 'ADVISE_MR advice 0 flags 0' : emptyCall)
  if (errno === undefined && methodSince(name) !== undefined) return 'EPROTONOSUPPORT'
  if (errno === undefined) throw new Error(`${emptyCall} is not among the recorded calls`)
  if (/^(EOPNOTSUPP|EPROTONOSUPPORT)$/.test(errno)) return errno
  return 'yes'
}

const argumentOf = ({ kind, name, cells }: IoctlAttribute): string => {
  if (kind === 'newHandle' || kind === 'newFd') return 'the new object'
  if (name === 'object' || cells.some(cell => cell.kind === 'object')) return 'the object'
  if (cells.some(cell => cell.kind === 'class')) return 'the class'
  const names = new Set([...(name === '' ? [] : [name]), ...cells.map(cell => cell.name.split('.')[0])])
  return [...names].map(code).join(', ') || '–'
}

const directionOf = ({ kind }: IoctlAttribute): 'in' | 'out' =>
  kind === 'out' || kind === 'list' || kind.startsWith('new') ? 'out' : 'in'

const attributesOf = (call: LinuxCall): string[] => {
  const found = ioctlMethods.find(({ object, number }) => object === call.number && number === call.methodNumber)
  const rows = call.attributes.map((name, id) => {
    const attribute = found?.attributes.find(one => one.id === id)
    const argument = found?.method === undefined || attribute === undefined ? '–' : argumentOf(attribute)
    return [String(id), code(name), attribute === undefined ? '' : directionOf(attribute), argument]
  })
  return [`**${code(call.name)}**`, '', ...table(['id', 'attribute', '', 'argument'], rows), '']
}

const INTRODUCTION = `# Linux's calls

Every call that the headers of Linux 7.3 have for uverbs, rdma_cm and umad, and what it is here: a method of one or
several classes, or none, with the reason. The write commands, the ioctls and the object dialect call the same methods;
the object dialect alone can pass every argument. Errors are Linux's: a command that a driver lacks is EOPNOTSUPP, an
ioctl EPROTONOSUPPORT, after which libibverbs tries the command. Calls of newer kernels are refused in the same way.

For write commands and ioctls, the column "rxe" says whether the soft device has the methods; what it lacks is declared,
and answers as above. "Linux" says whether Linux's own rxe has the call, recorded from Linux 6.12; [a
list](#where-linuxs-rxe-answers-differently) has all answers that differ. [What is new since
6.12](#what-is-new-since-linux-612) has a table.

Netlink has a table of its own, with all commands of Linux 7.3.

\`npm run docs\` writes this page, from \`src/spec/linux/\` and the recorded answers (\`test/every-call.ts\`).`

const LIBRARY_ONLY = [
  '## Functions that are not calls',
  '',
  'Some functions of libibverbs make no call. Only the provider decides about them, which for these devices is',
  'that of rxe: it has no parent and thread domains, no reading of the clock (`ibv_query_rt_values_ex`), no completion',
  'timestamps, no `ibv_rereg_mr`, `ibv_advise_mr`, `ibv_modify_cq`, and no `ibv_import_device`, `ibv_import_pd`,',
  "`ibv_import_mr`; each returns EOPNOTSUPP within the library, here as with Linux. The kernel's side of an import",
  'exists: a program that received the descriptor of a context (`SCM_RIGHTS`, or across exec) calls `QUERY_CONTEXT` and',
  '`QUERY_MR`, and uses the objects of the context by their handles. The objects belong to the context, whichever program',
  'created them; but a region ends with the program that registered it, where Linux keeps the pages.',
  '',
]

/** Calls of test/programs/uverbs/every_*.c and test/programs/connections/every_cm_call.c. */
const differences = (): string[] => [
  '## Where Linux’s rxe answers differently',
  '',
  `${onLinux.length} answers of Linux 6.12's rxe are recorded, and compared with those here. These differ:`,
  '',
  ...departures.flatMap(({ reason, lines }) => [
    `**${reason}**`,
    '',
    ...table(
      ['call', 'Linux', 'here'],
      lines.map(([line, here]) => {
        const [, call = '', , onLinuxAnswer = ''] = /^(.*?)( = | )(\S+)$/.exec(line.trim()) ?? []
        return [call, onLinuxAnswer, here]
      }),
    ),
    '',
  ]),
]

/** Test: test/daemon/since-6.12.test.ts. */
const newSince = (): string[] => [
  '## What is new since Linux 6.12',
  '',
  'Objects, methods, attributes, commands, events and values that the headers of Linux 7.3 have and those of 6.12 lack,',
  'with the release that brought them, and what a call with them gets here; "sent" and "never sent" are about answers and',
  'events. The attributes of a new method are of its release. A test makes all these calls.',
  '',
  ...table(
    ['since', '', 'Linux', 'gets', 'here'],
    additions.map(({ since, kind, names, answer, here }) => [
      since,
      additionKinds[kind] === undefined ? kind.replace('value', 'values') : kind,
      names.map(code).join(', '),
      answer,
      here,
    ]),
  ),
  '',
]

const netlink = (): string[] => {
  const rows = Object.entries(NldevCommands).map(([name, { number, requestKind, effect, ...command }]) => [
    String(number),
    code(name),
    requestKind === 'both' ? 'one, list' : requestKind,
    (command as Partial<NldevCommand>).needsNetAdmin ? 'yes' : '',
    effect,
  ])
  return [
    '## Netlink',
    '',
    'Commands of RDMA_NLDEV on sockets of NETLINK_RDMA. Those that change something require CAP_NET_ADMIN on Linux;',
    'here root or the user of the daemon may use them. Members of group 4 are notified when devices are added, renamed and',
    'removed.',
    '',
    ...table(['command', 'Linux', 'asked for', 'CAP_NET_ADMIN', 'here'], rows),
    '',
  ]
}

export const linuxAbiPage = (hasMethod: HasMethod): string => {
  const commands = linuxCalls.filter(({ dialect }) => dialect === 'write')
  const ioctls = linuxCalls.filter(({ dialect }) => dialect === 'ioctl')
  const numberOf = ({ number }: LinuxCall): string => (number < EXTENDED ? String(number) : `ex ${number - EXTENDED}`)
  return [
    INTRODUCTION,
    '',
    '## Write commands',
    '',
    'Also within the ioctl `DEVICE.INVOKE_WRITE`. Extended ones (bit 31) are "ex".',
    '',
    ...table(
      ['command', 'name', 'here', 'rxe', 'Linux'],
      commands.map(call => [numberOf(call), code(call.name), ...meaning(call, hasMethod), linuxHas(call)]),
    ),
    '',
    '## ioctl methods',
    '',
    ...table(
      ['object, method', 'name', 'here', 'rxe', 'Linux'],
      ioctls.map(call => [
        `${call.number}, ${call.methodNumber}`,
        code(call.name),
        ...meaning(call, hasMethod),
        linuxHas(call),
      ]),
    ),
    '',
    ...LIBRARY_ONLY,
    ...newSince(),
    ...differences(),
    ...netlink(),
    '## Commands of rdma_cm',
    '',
    'Written to /dev/infiniband/rdma_cm. Each open file is a channel, to which its identifiers belong.',
    '',
    ...table(
      ['command', 'Linux', 'here'],
      [
        ...ucmaCommands.map(({ number, name, class: cls, method }) => [number, code(name), code(`${cls}.${method}`)]),
        ...Object.entries(absentUcmaCommands).map(([number, { name, why }]) => [number, code(name), `none: ${why}`]),
      ]
        .sort(([a], [b]) => Number(a) - Number(b))
        .map(cells => cells.map(String)),
    ),
    '',
    '## Calls on umad files',
    '',
    'On /dev/infiniband/umadN. Each open file is a channel; its agents have the lowest free numbers from 0 to 31.',
    '[Management datagrams](management-datagrams.md) describes them further.',
    '',
    ...table(
      ['call', 'here', 'with'],
      umadCalls.map(({ call, method, remark }) => [
        code(call),
        method === undefined ? 'the file' : code(method),
        remark,
      ]),
    ),
    '',
    '## Attributes of ioctl methods',
    '',
    'Methods with `UHW_IN` (0x1000) and `UHW_OUT` (0x1001) take them as attributes of the driver.',
    '',
    ...ioctls.filter(({ absent }) => absent === undefined).flatMap(attributesOf),
  ]
    .join('\n')
    .replace(/\n+$/, '\n')
}
