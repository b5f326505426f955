/*
 * docs/reference/json.schema.json, for tests of outputs with --json.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { repoRoot } from '../../paths.ts'

export const readReference = (name: string): string => readFileSync(join(repoRoot, 'docs', 'reference', name), 'utf8')
export const schema = JSON.parse(readReference('json.schema.json')) as {
  readonly $defs: Readonly<Record<string, object>>
}
const ajv = new Ajv2020({ strict: true, strictTypes: false })
ajv.addSchema(schema, 'output')

/** Asserts that the output of a command is as its definition says. */
export const assertValid = (definition: string, value: unknown): void => {
  const validate = ajv.getSchema(`output#/$defs/${encodeURIComponent(definition)}`)
  assert.ok(validate, definition)
  assert.ok(validate(value), `${definition}: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(value, null, 1)}`)
}
