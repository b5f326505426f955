/*
 * docs/reference/classes matches the declarations (R13). UPDATE_GOLDEN=1 (`npm run docs`) rewrites it.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { classes } from '../../../src/spec/classes.ts'
import { qpTransitions } from '../../../src/spec/qp-states.ts'
import { repoRoot } from '../../paths.ts'
import { commentOfEnumeration, commentsOf } from './comments.ts'
import { referencePages } from './reference.ts'

const folder = join(repoRoot, 'docs', 'reference', 'classes')
const pages = referencePages()

test('the pages are current, none is missing and none is superfluous', () => {
  if (process.env.UPDATE_GOLDEN) {
    mkdirSync(folder, { recursive: true })
    for (const name of readdirSync(folder)) if (!pages.has(name)) rmSync(join(folder, name))
    for (const [name, page] of pages) writeFileSync(join(folder, name), page)
  }
  const hint = '`npm run docs` regenerates docs/reference/classes'
  assert.deepEqual(existsSync(folder) ? readdirSync(folder).sort() : [], [...pages.keys()].sort(), hint)
  for (const [name, page] of pages) assert.equal(readFileSync(join(folder, name), 'utf8'), page, `${name}: ${hint}`)
})

/** The section of a method on a class's page; '' if it is missing. */
const sectionOf = (className: string, method: string): string => {
  const [, ...parts] = (pages.get(`${className}.md`) ?? '').split(`\n## ${method}\n`)
  return parts.join('').split('\n## ')[0]
}

test('every class has a page with all of its methods and attributes', () => {
  for (const cls of classes) {
    for (const [name, method] of Object.entries(cls.methods)) {
      const section = sectionOf(cls.name, name)
      assert.notEqual(section, '', `${cls.name}.${name}`)
      for (const [direction, set] of Object.entries({ in: method.in, out: method.out }))
        for (const [attribute, { id }] of Object.entries(set))
          assert.ok(
            section.includes(`| ${direction} | \`${attribute}\` | ${id} | `),
            `${cls.name}.${name}: ${attribute}`,
          )
    }
  }
})

test('links have existing targets', () => {
  for (const [name, page] of pages)
    for (const [, file, anchor] of page.matchAll(/\]\(([\w./-]+\.md)(?:#([\w-]+))?\)/g)) {
      const target = pages.get(file) ?? readFileSync(join(folder, file), 'utf8')
      if (anchor !== undefined) assert.ok(target.includes(`\n## ${anchor}\n`), `${name}: ${file}#${anchor}`)
    }
})

test('state diagrams have every transition of the table', () => {
  for (const [type, rows] of Object.entries(qpTransitions)) {
    const page = pages.get(`${type.toLowerCase()}_qp.md`)
    if (page === undefined) continue
    const drawn = [...page.matchAll(/^ {4}(\w+) --> (\w+)$/gm)].map(([, from, to]) => `${from} ${to}`)
    const known = Object.entries(rows).flatMap(([from, to]) => Object.keys(to).map(name => `${from} ${name}`))
    assert.deepEqual(drawn.sort(), known.sort(), type)
  }
  assert.match(
    pages.get('rc_qp.md') ?? '',
    /\| RTR \| RTS \| `timeout`, `retryCnt`, `rnrRetry`, `sqPsn`, `maxRdAtomic` \|/,
  )
})

test('the comments of declarations are found', () => {
  const port = commentsOf('port')
  assert.match(port.opening.join(' '), /^Class `port`: a port of the device/)
  assert.match(port.method('queryGidEntry')?.join(' ') ?? '', /^One entry of the GID table. ENODATA/)
  assert.equal(port.method('query'), undefined)
  assert.match(commentsOf('system').field('nodeGuid') ?? '', /^In network order/)
  assert.match(commentOfEnumeration('mtu') ?? '', /^Path MTU: 128/)
  for (const cls of classes) assert.ok(commentsOf(cls.name).opening.length > 0, cls.name)
})

test('errors follow from a method’s arguments', () => {
  assert.match(sectionOf('cq', 'destroy'), /- ENOENT: the object does not exist\n[\s\S]*- EBUSY/)
  assert.match(sectionOf('cq', 'create'), /- EBADF: `channel` or `asyncFd` does not belong to this context/)
  assert.match(sectionOf('mr', 'create'), /- ENOENT: `pd` or `dm` or `dmah` does not exist/)
  assert.match(sectionOf('rc_qp', 'modify'), /In Linux: write `MODIFY_QP`, write `EX_MODIFY_QP`/)
})
