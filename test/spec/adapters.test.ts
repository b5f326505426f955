/*
 * The table of adapters, and docs/reference/adapters.md (UPDATE_GOLDEN=1 rewrites it).
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  type Adapter,
  adapterNames,
  adapters,
  type LimitName,
  limitNames,
  type OperationName,
  operationNames,
} from '../../src/spec/check/adapters.ts'
import { repoRoot } from '../paths.ts'

const limitRows = ({ limits }: Adapter): string[] =>
  limitNames.flatMap((name: LimitName) => {
    const [value, source, classes] = limits[name] ?? []
    const types =
      classes === undefined ? '' : ` (${classes.map(cls => cls.replace(/_qp$/, '').toUpperCase()).join(', ')})`
    return value === undefined ? [] : [`| ${name}${types} | ${value} | ${source} |`]
  })

const lackRows = ({ lacks }: Adapter): string[] =>
  (Object.keys(operationNames) as OperationName[]).flatMap(name => {
    const source = lacks[name]
    return source === undefined ? [] : [`| ${operationNames[name]} | – | ${source} |`]
  })

const hex = (value: number): string => value.toString(16).padStart(4, '0')

/** What `model=` shows of the adapter's PCI function. */
const pciText = ({ pci }: Adapter): string[] => {
  if (pci === undefined) return []
  const { vendor, device, subsystemVendor, subsystemDevice, driver, link, source } = pci
  const ids = `${hex(vendor)}:${hex(device)}, subsystem ${hex(subsystemVendor)}:${hex(subsystemDevice)}`
  const lanes = link === undefined ? '' : `, ${link.speed} GT/s on ${link.width} lanes`
  return ['', `PCI function: ${ids}, driver \`${driver}\`${lanes} (${source}).`]
}
const longAtomicRows = ({ longAtomic }: Adapter): string[] =>
  longAtomic === undefined
    ? []
    : [`| an atomic whose elements have more than 8 bytes | ${longAtomic[0]} | ${longAtomic[1]} |`]

const page = (): string =>
  `${[
    '# Adapters',
    '',
    '[`userdma check --like`](cli.md#check) compares programs with these adapters: their limits, and the operations of',
    'userdma that they lack. Each row names its source; what has no row has no public source that we know, and is not',
    'compared. No output of ConnectX-7 was found: `mlx5` stands for it. A limit is the largest value that the adapter',
    'accepts; max_qp to max_res_rd_atom count what all programs of a device have together. `--device` can',
    '[lower limits](cli.md#a-device-with-lower-limits) of a device of ours to these. If the limit of a queue depends on the size of its WQEs, the table has the limit for',
    'the smallest WQE, and creation of a smaller queue with larger WQEs may fail too.',
    '',
    'All of them pin registered memory, which counts against `RLIMIT_MEMLOCK`, and on kernels before 5.12 programs that',
    'fork need `ibv_fork_init`.',
    '',
    'No source states an alignment rule that differs from that of the specification (addresses of atomics are multiples',
    'of 8): the post functions of rdma-core providers/mlx5/qp.c, efa/verbs.c and irdma/uverbs.c check neither addresses',
    'nor lengths.',
    '',
    '`--device NAME@ADDRESS,pci=BDF,model=NAME` shows a device with the PCI function of an adapter',
    '([how](cli.md#a-device-with-a-pci-function)).',
    ...adapterNames.flatMap(name => [
      '',
      `## ${name}`,
      '',
      `${adapters[name].model[0].toUpperCase()}${adapters[name].model.slice(1)}.`,
      ...pciText(adapters[name]),
      '',
      '| limit, missing operation or behaviour | value | source |',
      '|---|---|---|',
      ...limitRows(adapters[name]),
      ...lackRows(adapters[name]),
      ...longAtomicRows(adapters[name]),
    ]),
  ].join('\n')}\n`

test('every limit and missing operation has a source', () => {
  for (const name of adapterNames) {
    const { limits, lacks, model } = adapters[name]
    assert.match(model, /./)
    for (const [value, source] of Object.values(limits)) {
      assert.ok(Number.isSafeInteger(value) && value >= 0, name)
      assert.match(source, /Linux|rdma-core|ibv_devinfo|pull request|issue/, name)
    }
    assert.match(adapters[name].pci?.source ?? 'Linux', /Linux/, name)
    const { longAtomic } = adapters[name]
    if ('atomics' in lacks || 'remoteAtomic' in lacks) assert.equal(longAtomic, undefined, name)
    for (const source of Object.values(lacks))
      assert.match(source, /Linux|rdma-core|ibv_devinfo|pull request|issue/, name)
  }
})

test('docs/reference/adapters.md is the table', () => {
  const path = join(repoRoot, 'docs', 'reference', 'adapters.md')
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page())
  assert.equal(readFileSync(path, 'utf8'), page(), '`npm run docs` regenerates it')
})
