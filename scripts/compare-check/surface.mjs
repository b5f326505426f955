/*
 * What users and tools see of a build without running programs under it: help, completions, the JSON schema, the files
 * of the npm package, and the declarations of the package's entry points.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import ts from 'typescript-oldest'
import { StepError } from '../common.mjs'

const printed = (program, args) => {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 26 })
  if (status !== 0) throw new StepError(`${program} ${args.join(' ')}: ${stderr}`)
  return stdout
}

/** The help of a command and of those below it. */
const helpOf = (userdma, words) => {
  const own = printed(userdma, [...words, '--help'])
  const [, list = ''] = /\nCommands:\n(.*?)(?:\n\n|$)/s.exec(own) ?? []
  const below = [...list.matchAll(/^ {2}([a-z][\w-]*)/gm)].map(([, name]) => name).filter(name => name !== 'help')
  return [`$ userdma ${words.join(' ')} --help\n${own}`, ...below.flatMap(name => helpOf(userdma, [...words, name]))]
}

/** The list of the npm package; common parts of bundles have names of their bytes. */
const packed = async checkout => {
  const work = mkdtempSync(join(tmpdir(), 'userdma-compare-'))
  try {
    const { packMain } = await import(pathToFileURL(join(checkout, 'scripts', 'package', 'npm.mjs')).href)
    const names = printed('tar', ['tzf', await packMain(work, work)]).split('\n')
    return [...new Set(names.map(name => name.replace(/parts\/\w+\.js/, 'parts/*.js')))].sort().join('\n')
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/**
 * For each entry point its exports, each with its declaration; then the declarations in the package that these name,
 * and so on. It is the same wherever their files are.
 */
const declarations = checkout => {
  const { exports } = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8'))
  const entries = Object.entries(exports).flatMap(([name, { types }]) => (types ? [[name, join(checkout, types)]] : []))
  const program = ts.createProgram(
    entries.map(([, path]) => path),
    { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, noEmit: true, types: [] },
  )
  const checker = program.getTypeChecker()
  const resolved = symbol => (symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol)
  /** Of the package, with the statement around a variable. */
  const nodesOf = symbol =>
    (symbol.declarations ?? []).filter(node => node.getSourceFile().fileName.startsWith(join(checkout, 'dist')))
  const reached = new Set()
  const visit = node => {
    if (ts.isIdentifier(node)) {
      const symbol = checker.getSymbolAtLocation(node)
      if (symbol !== undefined) for (const one of nodesOf(resolved(symbol))) reached.add(one)
    }
    ts.forEachChild(node, visit)
  }
  const lines = entries.flatMap(([name, path]) => {
    const module = checker.getSymbolAtLocation(program.getSourceFile(path))
    return checker.getExportsOfModule(module).map(symbol => {
      for (const node of nodesOf(resolved(symbol))) reached.add(node)
      return `${name}: ${symbol.name}`
    })
  })
  for (const node of reached) visit(node)
  const isWhole = node => ts.isSourceFile(node.parent) || ts.isVariableDeclaration(node)
  const texts = [...reached].flatMap(node => (isWhole(node) ? [node.getText()] : []))
  return [...lines.sort(), ...[...new Set(texts)].sort()].join('\n')
}

/** Texts by name. */
export const surfaceOf = async checkout => {
  const userdma = join(checkout, 'bin', 'userdma')
  return {
    help: helpOf(userdma, []).join('\n'),
    completions: ['bash', 'zsh', 'fish'].map(shell => printed(userdma, ['completion', shell])).join('\n'),
    findings: printed(userdma, ['check', '--explain']),
    'json-schema': readFileSync(join(checkout, 'docs', 'reference', 'json.schema.json'), 'utf8'),
    package: await packed(checkout),
    declarations: declarations(checkout),
  }
}
