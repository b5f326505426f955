/*
 * Reads the file of `userdma sim` (docs/how-to/simulate.md): YAML with a topology, links, traffic and controls. An
 * error names the setting by its path, the value as written, and what is allowed.
 */
import { basename } from 'node:path'
import { flowCount, flowsOf, type Pattern, patterns, type Scenario } from '../../tools/sim/scenario.ts'
import { type Control, controls, type FlowSpec } from '../../tools/sim/world.ts'
import { readInputFile } from '../../tools/topology/input-file.ts'
import { documentOf, LINKS_KEYS, MAX_FILE_BYTES, readLinks } from '../../tools/topology/links-file.ts'
import type { Section } from '../../tools/topology/section.ts'

interface ScenarioFile {
  readonly scenario: Scenario
  readonly controls: readonly Control[]
}

const MAX_FLOWS = 100_000
const MAX_MESSAGE = 2 ** 30
const MTUS = [256, 512, 1024, 2048, 4096]
/** Bytes of IPv4, UDP and RoCEv2 headers before the payload of a WRITE's first packet, and of the ICRC. */
const HEADER_BYTES = 28 + 28 + 4

const TRAFFIC_KEYS = ['pattern', 'peers', 'message', 'messages', 'depth', 'stagger']

const readTraffic = (top: Section, hosts: number): FlowSpec[] => {
  const section = top.section('traffic', TRAFFIC_KEYS)
  const pattern = section.oneOf('pattern', Object.keys(patterns) as Pattern[])
  const peers = section.integer('peers', 1, 1, Math.max(1, hosts - 1))
  if (pattern !== 'permutation' && section.has('peers')) section.complain('peers', 'is for pattern: permutation')
  const bytes = section.size('message', 65_536, 4, MAX_MESSAGE)
  if (bytes % 4 !== 0) section.complain('message', `${bytes} bytes are not a multiple of 4`)
  const count = flowCount(pattern, hosts, peers)
  if (count > MAX_FLOWS)
    section.complain('pattern', `${pattern} of ${hosts} hosts has ${count} flows; at most ${MAX_FLOWS}`)
  return flowsOf(pattern, hosts, peers, {
    bytes,
    messages: section.has('messages') ? section.integer('messages', undefined, 1, 1e9) : Number.POSITIVE_INFINITY,
    depth: section.integer('depth', 2, 1, 1024),
    stagger: section.time('stagger', 0),
  })
}

const KEYS = [
  'name',
  ...LINKS_KEYS,
  'traffic',
  'control',
  'time',
  'warm-up',
  'mtu',
  'window',
  'timeout',
  'seed',
  'granularity',
]

/** Parses `source`. `file`: for messages, and the folder of other files. Throws InputError. */
export const parseScenario = (source: string, file: string): ScenarioFile => {
  const top = documentOf(source, file, KEYS)
  const topology = readLinks(top, file)
  const mtu = top.integer('mtu', 1024, 256, 4096)
  if (!MTUS.includes(mtu)) top.complain('mtu', `${mtu}: give one of ${MTUS.join(', ')}`)
  const smallest = topology.links.reduce(
    (least, { mtu = Number.POSITIVE_INFINITY }) => Math.min(least, mtu),
    Number.POSITIVE_INFINITY,
  )
  if (mtu + HEADER_BYTES > smallest)
    top.complain(
      'mtu',
      `${mtu}: packets with headers have ${mtu + HEADER_BYTES} bytes, and a link has an MTU of ${smallest}`,
    )
  const time = top.time('time', 10_000, 1)
  return {
    scenario: {
      name: top.text('name', basename(file).replace(/\.[^.]*$/, '')),
      topology,
      flows: readTraffic(top, topology.hosts),
      time,
      warmUp: top.time('warm-up', time / 2),
      mtu,
      window: top.size('window', 262_144, 8192, 1e9),
      timeout: top.integer('timeout', 10, 1, 31),
      seed: top.integer('seed', 1, 0, 2 ** 32 - 1),
      granularity: top.time('granularity', 0, 0, time / 2),
    },
    controls: top.list('control', Object.keys(controls) as Control[]),
  }
}

/** Reads a file. Throws InputError. */
export const readScenario = (file: string): ScenarioFile =>
  parseScenario(readInputFile(file, 'scenario', MAX_FILE_BYTES), file)
