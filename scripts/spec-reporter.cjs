/*
 * A reporter of Node's test runner: its reporter "spec", with the lines of TypeScript in stacks. Only what is printed is
 * translated: with `--enable-source-maps` Node reads the map of every module that a test loads, a tenth of the tests'
 * processor time. CommonJS: the runner requires a default export, which modules of this project must not have.
 */
const { existsSync, readFileSync } = require('node:fs')
const { SourceMap } = require('node:module')
const { dirname, join } = require('node:path')
const { compose } = require('node:stream')
const { spec } = require('node:test/reporters')

/** By the path of a compiled file; undefined if it has no map. */
const maps = new Map()

const mapOf = path => {
  if (!maps.has(path)) {
    const file = `${path}.map`
    maps.set(path, existsSync(file) ? new SourceMap(JSON.parse(readFileSync(file, 'utf8'))) : undefined)
  }
  return maps.get(path)
}

/** A position in a compiled file: `file:///…/dist/test/a.test.js:3:1`, without the scheme, or relative. */
const POSITION = /(?:file:\/\/)?([^\s:()]+\.[cm]?js):(\d+):(\d+)/g

/** `text` with positions of sources instead of those of compiled files. */
const translate = text =>
  text.replace(POSITION, (position, path, line, column) => {
    const { originalSource, originalLine, originalColumn } = mapOf(path)?.findEntry(line - 1, column - 1) ?? {}
    if (originalSource === undefined) return position
    return `${join(dirname(path), originalSource)}:${originalLine + 1}:${originalColumn + 1}`
  })

module.exports = async function* reportSpec(events) {
  for await (const text of compose(events, new spec())) yield translate(String(text))
}
