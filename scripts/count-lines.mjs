#!/usr/bin/env node
/*
 * Counts lines of code of the rooms of `userdma check`, without comments, blank lines and generated files, and names functions above 150
 * lines, comments included. So a change of their structure shows whether it has made them smaller.
 *
 *   node scripts/count-lines.mjs          prints each room, with its lines in scripts/count-lines.tsv
 *   node scripts/count-lines.mjs --save   writes scripts/count-lines.tsv
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { relative } from 'node:path'
import ts from 'typescript-oldest'
import { filesBelow, inRoot, main, StepError } from './common.mjs'

/** The most lines of a function. */
const MAX_LINES = 150
const TABLE = inRoot('scripts', 'count-lines.tsv')

/** Folders by room. */
const rooms = {
  'tools/check': 'src/tools/check',
  'tools/clients/check': 'src/tools/clients/check',
  'spec/check': 'src/spec/check',
  'cli/check': 'src/cli/check',
  'shim/check': 'shim/check',
  daemon: 'src/daemon/check',
}

const filesOf = folder => filesBelow(inRoot(folder), name => /\.(ts|c|h)$/.test(name))

const linesWithText = text => text.split('\n').filter(line => line.trim() !== '').length

/** C without comments; strings stay. */
const withoutComments = text =>
  text.replace(/\/\*[\s\S]*?\*\/|\/\/.*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'/g, part =>
    part.startsWith('/') ? ' ' : part,
  )

/** Functions in C begin with a line that ends the list of parameters, and have their braces in the first column. */
const longFunctionsInC = text => {
  const lines = text.split('\n')
  return lines.flatMap((line, i) => {
    if (line !== '{') return []
    const count = lines.indexOf('}', i) - i + 2
    return count > MAX_LINES ? [{ name: /(\w+)\([^(]*$/.exec(lines[i - 1])?.[1] ?? '?', line: i, count }] : []
  })
}

const nameOf = node =>
  node.name?.getText() ?? (node.parent?.name && ts.isIdentifier(node.parent.name) ? node.parent.name.text : '?')

const inTypeScript = (path, text) => {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
  const lineAt = position => source.getLineAndCharacterOfPosition(position).line
  const lines = new Set()
  const long = []
  const visit = node => {
    if (node.getChildCount(source) === 0 && node.kind !== ts.SyntaxKind.EndOfFileToken)
      for (let line = lineAt(node.getStart(source)); line <= lineAt(node.end); line++) lines.add(line)
    const first = lineAt(node.getStart(source))
    const count = lineAt(node.end) - first + 1
    if (ts.isFunctionLike(node) && node.body && count > MAX_LINES)
      long.push({ name: nameOf(node), line: first + 1, count })
    // JSDoc is among the children.
    for (const child of node.getChildren(source)) if (!ts.isJSDoc(child)) visit(child)
  }
  visit(source)
  return { count: lines.size, long }
}

const countedFile = path => {
  const text = readFileSync(path, 'utf8')
  return path.endsWith('.ts')
    ? inTypeScript(path, text)
    : { count: linesWithText(withoutComments(text)), long: longFunctionsInC(text) }
}

const countedRoom = name => {
  const paths = filesOf(rooms[name])
  const files = paths.map(path => ({ path: relative(inRoot(), path), ...countedFile(path) }))
  return {
    name,
    files: files.length,
    count: files.reduce((sum, { count }) => sum + count, 0),
    long: files.flatMap(({ path, long }) => long.map(one => ({ path, ...one }))),
  }
}

const sumOf = counted => ({
  name: 'all',
  files: counted.reduce((sum, { files }) => sum + files, 0),
  count: counted.reduce((sum, { count }) => sum + count, 0),
})

main(args => {
  if (args.length > 1 || (args.length === 1 && args[0] !== '--save'))
    throw new StepError(`usage: node scripts/count-lines.mjs [--save]; got: ${args.join(' ')}`)
  const counted = Object.keys(rooms).map(countedRoom)
  const rows = [...counted, sumOf(counted)]
  const long = counted.flatMap(room => room.long).sort((a, b) => b.count - a.count)
  if (args.length === 1) {
    const lines = rows.map(({ name, files, count }) => `${name}\t${files}\t${count}`)
    writeFileSync(TABLE, ['room\tfiles\tlines', ...lines, ''].join('\n'))
  }
  const before = new Map(
    readFileSync(TABLE, 'utf8')
      .split('\n')
      .map(line => line.split('\t'))
      .map(([name, , count]) => [name, Number(count)]),
  )
  for (const { name, files, count } of rows)
    console.log(
      `${name.padEnd(20)} ${String(files).padStart(4)} files ${String(count).padStart(6)} lines, before ${before.get(name) ?? '-'}`,
    )
  console.log(`${long.length} functions above ${MAX_LINES} lines`)
  for (const { path, name, line, count } of long) console.log(`${String(count).padStart(6)} ${name} ${path}:${line}`)
})
