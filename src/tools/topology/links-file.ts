/*
 * The part of a file of `userdma sim` that describes links (docs/how-to/simulate.md): `topology`, `link` and `trunk`.
 */
import { dirname, resolve } from 'node:path'
import { isMap, LineCounter, parseDocument, visit } from 'yaml'
import { chain, type LinkSettings, type LinkTopology, leafSpine, star } from '../../transport/phy/links/graph.ts'
import { InputError } from './input-error.ts'
import { DEFAULT_LINK, LINK_KEYS, readSettings } from './link-settings.ts'
import { deepAt, MAX_DEPTH, offsetOf, readTopology, type Topology } from './net-file.ts'
import { Section } from './section.ts'

export const MAX_FILE_BYTES = 2 ** 18
const MAX_HOSTS = 4096
const MAX_SWITCHES = 1024

/** Parses YAML that is a map with no other keys than `keys`; undefined: with any. Throws InputError. */
export const documentOf = (source: string, file: string, keys: readonly string[] | undefined): Section => {
  const lines = new LineCounter()
  const placeAt = (offset: number): string => {
    const { line, col } = lines.linePos(offset)
    return `${file}:${line}:${col}`
  }
  const deep = deepAt(source)
  if (deep !== undefined)
    throw new InputError(`${file}:${deep}: there are more than ${MAX_DEPTH} levels of lists and maps`)
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false })
  const [error] = document.errors
  if (error !== undefined)
    throw new InputError(`${placeAt(error.pos[0])}: ${error.message.replace(/\.?\n[\s\S]*$/, '')}`)
  visit(document, {
    // A few lines could stand for a huge file.
    Alias(_, { range, source: name }) {
      throw new InputError(`${placeAt(range?.[0] ?? 0)}: *${name}: an alias is not allowed; write it out`)
    },
  })
  return new Section({ at: place => placeAt(offsetOf(document.contents, place)) }, '', document.toJS(), keys)
}

/** Whether a file is one of `userdma sim`: a map with the key `topology`, in any notation. */
export const isScenario = (source: string): boolean => {
  if (deepAt(source) !== undefined) return false
  const { contents } = parseDocument(source)
  return isMap(contents) && contents.has('topology')
}

const readLink = (parent: Section, key: string, fallback: LinkSettings): LinkSettings =>
  parent.has(key) ? readSettings(parent.section(key, LINK_KEYS), fallback) : fallback

/** A topology of `userdma net`; what its links do not say is as in `link`. */
export const netTopology = ({ hosts, switches, routers, links }: Topology, link: LinkSettings): LinkTopology => {
  const names = [...hosts.map(({ name }) => name), ...switches, ...routers.map(({ name }) => name)]
  const numbers = new Map(names.map((name, i) => [name, i]))
  return {
    hosts: hosts.length,
    switches: switches.length,
    routers: routers.length,
    names,
    links: links.flatMap(({ settings: { rate = link.rate, delay, loss = link.loss, mtu }, classes, ends }) =>
      ends.map(([a, b]) => ({
        ...link,
        ...(classes !== undefined && { classes }),
        rate,
        delay: delay === undefined ? link.delay : 1000 * delay,
        loss,
        mtu,
        ends: [numbers.get(a)!, numbers.get(b)!] as const,
      })),
    ),
  }
}

const SHAPES = ['star', 'chain', 'leaf-spine', 'file']

const readShape = (top: Section, file: string, link: LinkSettings, trunk: LinkSettings): LinkTopology => {
  const section = top.section('topology', SHAPES)
  const [shape, ...others] = section.keys()
  if (shape === undefined || others.length > 0) section.complain('', `give one of ${SHAPES.join(', ')}`)
  if (shape === 'star') return star(section.integer('star', undefined, 2, MAX_HOSTS), link)
  if (shape === 'file') return netTopology(readTopology(resolve(dirname(file), section.text('file'))), link)
  if (shape === 'chain') {
    const sizes = section.section('chain', ['switches', 'hosts'])
    const switches = sizes.integer('switches', undefined, 2, MAX_SWITCHES)
    return chain(switches, sizes.integer('hosts', undefined, 1, Math.floor(MAX_HOSTS / switches)), link, trunk)
  }
  const sizes = section.section('leaf-spine', ['leaves', 'spines', 'hosts'])
  const leaves = sizes.integer('leaves', undefined, 1, MAX_SWITCHES / 2)
  const spines = sizes.integer('spines', undefined, 1, MAX_SWITCHES / 2)
  return leafSpine(leaves, spines, sizes.integer('hosts', undefined, 1, Math.floor(MAX_HOSTS / leaves)), link, trunk)
}

export const LINKS_KEYS = ['topology', 'link', 'trunk']

/** Reads the links that `top` describes. `file`: whose folder has other files. Throws InputError. */
export const readLinks = (top: Section, file: string): LinkTopology => {
  const link = readLink(top, 'link', DEFAULT_LINK)
  return readShape(top, file, link, readLink(top, 'trunk', link))
}
