/*
 * Parses the YAML of this repository's files for CI: maps, lists, texts in one line, and `|` blocks. Everything else of
 * YAML is an error.
 */
type Yaml = string | readonly Yaml[] | { readonly [key: string]: Yaml }

interface Line {
  readonly indent: number
  readonly text: string
}

const scalar = (text: string): string => {
  if (/^[[{&*!>%@`"]/.test(text)) throw new Error(`this YAML is not supported: ${text}`)
  return text.replace(/^'(.*)'$/, '$1')
}

/** Throws an Error for YAML that it does not know. */
export const parseYaml = (source: string): Yaml => {
  const lines: Line[] = source
    .split('\n')
    .map(line => ({ indent: line.search(/\S|$/), text: line.trim() }))
    .filter(({ text }) => text !== '' && !text.startsWith('#'))
  let next = 0

  const block = (indent: number): string => {
    const first = lines[next]?.indent ?? 0
    let text = ''
    for (; next < lines.length && lines[next]!.indent > indent; next++)
      text += `${' '.repeat(lines[next]!.indent - first)}${lines[next]!.text}\n`
    return text
  }

  /** What follows a key at `indent`: `rest` of its line, or the lines below. */
  const value = (rest: string, indent: number): Yaml => {
    if (rest === '|') return block(indent)
    if (rest !== '') return scalar(rest)
    const line = lines[next]
    if (line === undefined || line.indent <= indent) return ''
    return line.text.startsWith('- ') ? list(line.indent) : map(line.indent)
  }

  const map = (indent: number): Yaml => {
    const found: Record<string, Yaml> = {}
    while (lines[next]?.indent === indent) {
      const [, key, rest = ''] = /^([\w.-]+):(?: (.*))?$/.exec(lines[next]!.text) ?? []
      if (key === undefined) throw new Error(`this YAML is not supported: ${lines[next]!.text}`)
      next++
      found[key] = value(rest, indent)
    }
    return found
  }

  const list = (indent: number): Yaml => {
    const found: Yaml[] = []
    while (lines[next]?.indent === indent && lines[next]!.text.startsWith('- ')) {
      const text = lines[next]!.text.slice(2)
      if (/^[\w.-]+:( |$)/.test(text)) {
        lines[next] = { indent: indent + 2, text }
        found.push(map(indent + 2))
      } else {
        next++
        found.push(scalar(text))
      }
    }
    return found
  }

  const parsed = value('', -1)
  if (next < lines.length) throw new Error(`this YAML is not supported: ${lines[next]!.text}`)
  return parsed
}
