/*
 * R13: `userdma schema` prints all declarations with their drivers, or the description of a daemon's device.
 */
import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import { declaredSchema, schemaText } from '../../../src/cli/commands/schema.ts'
import { type Schema, schemaOf } from '../../../src/cli/schema-json.ts'
import { DRIVER_FIRST } from '../../../src/spec/classes/ids.ts'
import { classes } from '../../../src/spec/classes.ts'
import { classesOf, withoutRoles } from '../../spec/schema/schema-reader.ts'
import { lacking, runUserdma, startDaemon } from '../../system/programs.ts'

const driversOf = ({ classes: all }: Schema, name: string, method?: string): readonly string[] | undefined => {
  const cls = all.find(one => one.name === name)
  return method === undefined ? cls?.drivers : cls?.methods.find(one => one.name === method)?.drivers
}

test('every declaration is listed with the drivers that have it', () => {
  const schema = declaredSchema()
  assert.deepEqual(classesOf(schema).slice(0, classes.length), withoutRoles(classes))
  assert.ok(driversOf(schema, 'rc_qp')?.includes('rxe'))
  assert.ok(driversOf(schema, 'rc_qp', 'postSend')?.includes('rxe'))
  assert.deepEqual(driversOf(schema, 'tm_srq'), [])
  assert.deepEqual(driversOf(schema, 'tm_srq', 'create'), [])
  assert.deepEqual(driversOf(schema, 'system'), [])
})

test('the text has every class, method and attribute', () => {
  const schema = declaredSchema()
  const text = schemaText(schema)
  for (const cls of schema.classes) {
    const from = text.indexOf(`class ${cls.name} (`)
    const part = text.slice(from, text.indexOf('\n\n', from))
    assert.ok(from >= 0)
    for (const method of cls.methods) {
      assert.ok(part.includes(`\n  ${method.name} (${method.call}, `), `${cls.name}.${method.name}`)
      for (const [arrow, set] of [
        ['→', method.in],
        ['←', method.out],
      ] as const)
        for (const { name, optional } of set)
          assert.ok(
            part.includes(`\n    ${arrow} ${name}${optional ? '?' : ''}: `),
            `${cls.name}.${method.name} ${name}`,
          )
    }
  }
  assert.match(text, /^class cq \(5\), named by handles; .*rxe/m)
  assert.match(text, /^class tm_srq \(11\), named by handles; no driver has it$/m)
  assert.match(text, /^ {4}→ asyncFd\?: descriptor of async_fd \(6\)$/m)
  assert.match(text, /^ {8} 12 maxRecvSge: u32$/m)
  assert.match(text, /^qp_state: RESET 0, INIT 1, /m)
})

describe('userdma schema', { skip: lacking() }, () => {
  it('prints the declarations without a daemon', async t => {
    const { status, stdout, stderr } = await runUserdma(t, ['schema', '--json'])
    assert.deepEqual([status, stderr], [0, ''])
    assert.deepEqual(JSON.parse(stdout), JSON.parse(JSON.stringify(declaredSchema())))
    assert.equal((await runUserdma(t, ['schema'])).stdout, schemaText(declaredSchema()))
  })

  it('prints a device’s own description', async t => {
    const { socket } = await startDaemon(t)
    const runSchema = (...args: string[]) => runUserdma(t, ['schema', '--device', ...args, '--socket', socket])
    const { status, stdout, stderr } = await runSchema('rxe0', '--json')
    assert.deepEqual([status, stderr], [0, ''])
    const schema = JSON.parse(stdout) as Schema
    assert.equal(schema.device, 'rxe0')
    assert.deepEqual(JSON.parse(JSON.stringify(schemaOf(classesOf(schema), { device: 'rxe0' }))), schema)
    const names = schema.classes.map(({ name }) => name)
    assert.ok(names.includes('rc_qp') && !names.includes('tm_srq') && !names.includes('system'))
    const { out } = schema.classes.find(({ name }) => name === 'cq')!.methods.find(({ name }) => name === 'create')!
    assert.ok(out.some(({ id }) => id >= DRIVER_FIRST))
    assert.match(
      (await runSchema('rxe0')).stdout,
      /^class rc_qp \(16\), named by handles\n {2}create \(0, common 0\)\n/m,
    )
    const wrong = await runSchema('rxe9')
    assert.equal(wrong.status, 1)
    assert.match(
      wrong.stderr,
      /^userdma: system.interface: there is no device rxe9; there are rxe0, did you mean "rxe0"\?/,
    )
  })
})
