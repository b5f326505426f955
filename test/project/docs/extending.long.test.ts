/*
 * docs/how-to/extending.md: its diffs are applied to a copy of the sources, and its programs run.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { temporaryFolder } from '../../system/programs.ts'

const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'extending.md'), 'utf8')

interface Part {
  readonly title: string
  readonly diff: string
  readonly program: string
  /** Expected output of the program. */
  readonly prints: string
  /** Part of the output of `userdma schema`; undefined: the part changes no class. */
  readonly schema: string | undefined
}
const fences = (text: string, kind: string): string[] =>
  [...text.matchAll(new RegExp(`^\`\`\`${kind}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(match => match[1])
const parts = page
  .split(/^## /m)
  .slice(1)
  .map((text): Part => {
    const [prints, schema] = fences(text, 'text')
    return {
      title: text.slice(0, text.indexOf('\n')),
      diff: fences(text, 'diff')[0],
      program: fences(text, 'ts')[0],
      prints,
      schema,
    }
  })

// ---- diffs ----

/** The diff has no line numbers: a hunk is located by its text. */
const apply = (root: string, diff: string): void => {
  for (const file of diff.split(/^--- /m).slice(1)) {
    const [from, to, ...lines] = file.replace(/\n$/, '').split('\n')
    const path = join(root, to.replace(/^\+\+\+ b\//, ''))
    assert.equal(from === '/dev/null', !existsSync(path), `${to}: a new file is from /dev/null`)
    let text = from === '/dev/null' ? '' : readFileSync(path, 'utf8')
    for (const hunk of lines
      .join('\n')
      .split(/^@@.*$\n?/m)
      .slice(1)) {
      const rows = hunk.replace(/\n$/, '').split('\n')
      const side = (mark: string): string =>
        rows
          .filter(row => row[0] === ' ' || row[0] === mark)
          .map(row => `${row.slice(1)}\n`)
          .join('')
      const before = side('-')
      if (before !== '')
        assert.equal(text.split(before).length, 2, `${to}: these lines are not found exactly once:\n${before}`)
      text = before === '' ? text + side('+') : text.replace(before, () => side('+'))
    }
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
  }
}

// ---- the copy ----

const run = (cwd: string, program: string, ...args: string[]): string => {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, encoding: 'utf8' })
  assert.equal(status, 0, `${program} ${args.join(' ')}\n${stdout}${stderr}`)
  return stdout
}

test('the diffs apply, and programs and schema print what the page shows', t => {
  const root = temporaryFolder(t)
  for (const name of ['src', 'scripts', 'package.json', 'tsconfig.json'])
    cpSync(join(repoRoot, name), join(root, name), { recursive: true })
  symlinkSync(join(repoRoot, 'node_modules'), join(root, 'node_modules'))
  writeFileSync(
    join(root, 'tsconfig.try.json'),
    JSON.stringify({ extends: './tsconfig.json', include: ['src/**/*.ts', 'try/*.ts'] }),
  )
  assert.deepEqual(
    parts.map(({ title }) => title),
    ['An attribute', 'A class', 'A finding'],
  )
  mkdirSync(join(root, 'try'))
  parts.forEach(({ diff, program }, i) => {
    apply(root, diff)
    writeFileSync(join(root, 'try', `${i}.ts`), program)
  })
  run(root, process.execPath, 'scripts/generate-findings.mjs')
  run(root, process.execPath, join(repoRoot, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.try.json')
  const schema = run(root, process.execPath, 'dist/src/cli/main.js', 'schema')
  parts.forEach((part, i) => {
    assert.equal(run(root, process.execPath, `dist/try/${i}.js`), part.prints, part.title)
    assert.ok(
      part.schema === undefined || schema.includes(part.schema),
      `${part.title}: the schema lacks\n${part.schema}`,
    )
  })
})

test('each diff changes declarations and what handles them', () => {
  const touched = parts.map(({ diff }) => [...diff.matchAll(/^\+\+\+ b\/(.+)$/gm)].map(match => match[1]))
  assert.deepEqual(touched, [
    ['src/spec/classes/device/system.ts', 'src/core/base/system.ts'],
    ['src/spec/classes/tally.ts', 'src/spec/classes/ids.ts', 'src/spec/classes.ts', 'src/drivers/null/device.ts'],
    ['src/spec/check/findings/tiny-cq.ts', 'src/tools/check/findings/tiny-cq.ts'],
  ])
})

test('the index of the documents links to the page', () => {
  assert.match(readFileSync(join(repoRoot, 'docs', 'README.md'), 'utf8'), /\(how-to\/extending\.md\)/)
})
