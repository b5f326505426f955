#!/usr/bin/env node
/*
 * Builds after each change of a source, then runs the tests nearest to it.
 *
 *   npm run watch                   tests that import what changed (affected-tests.mjs), at most MAX_FILES files
 *   npm run watch -- wire core      these tests, those of `npm test -- wire core`, after each change
 */
import { watch } from 'node:fs'
import { join, relative } from 'node:path'
import { affectedTests } from './affected-tests.mjs'
import { build } from './build.mjs'
import { inRoot, isMain, main, root, say } from './common.mjs'
import { runFiles, testFiles } from './test.mjs'

const FOLDERS = ['src', 'web', 'test', 'shim', 'native', 'examples', 'bench', 'docs/findings']
/** A change of a file that everything imports affects almost all tests, which take many minutes. */
const MAX_FILES = 12
/** Milliseconds without a further change before a build: editors and git write several files. */
const QUIET = 100

/** Whether a change of this file, named below one of FOLDERS, is followed by a build. */
export const isSource = name => /\.(tsx?|css|html|c|h)$/.test(name) && name !== 'protocol.h'

const compiledOf = source => inRoot('dist', source.replace(/\.tsx?$/, '.js'))

/** Resolves with the compiled test files to run after changes of `sources`, paths in the checkout. */
const testsAfter = async (sources, words) => {
  if (words.length > 0) return testFiles(false, words)
  const wanted = new Set(await testFiles(false, []))
  const affected = affectedTests(inRoot('dist'), sources.filter(path => /\.tsx?$/.test(path)).map(compiledOf))
    .map(path => relative(root, path))
    .filter(path => wanted.has(path))
  if (affected.length > MAX_FILES)
    say(`${affected.length} test files are affected: the nearest ${MAX_FILES} run; \`npm test\` runs all`)
  if (affected.length === 0)
    say(`no test file imports ${sources.join(', ')}: name tests, as in \`npm run watch -- shim\``)
  return affected.slice(0, MAX_FILES)
}

const watchSources = async words => {
  const changed = new Set()
  let timer
  let isBusy = false

  const onQuiet = async () => {
    if (isBusy || changed.size === 0) return
    isBusy = true
    const sources = [...changed].sort()
    changed.clear()
    say(`changed: ${sources.join(', ')}`)
    if (await build('test')) {
      const files = await testsAfter(sources, words)
      if (files.length > 0) runFiles(files)
    }
    say('waiting for changes')
    isBusy = false
    await onQuiet()
  }

  for (const folder of FOLDERS)
    watch(inRoot(folder), { recursive: true }, (_, name) => {
      if (!isSource(name ?? '')) return
      changed.add(join(folder, name))
      clearTimeout(timer)
      timer = setTimeout(onQuiet, QUIET)
    })
  if (words.length > 0) await testFiles(false, words)
  await build('test')
  say('waiting for changes')
}

if (isMain(import.meta.url)) main(watchSources)
