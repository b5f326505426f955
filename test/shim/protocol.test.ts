/*
 * shim/protocol.h and shim/host/records.h are what scripts/generate-protocol.mjs makes of src/spec/session.ts and
 * src/tools/observe/file-layout.ts, and a C compiler agrees with the layout of their structs.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import * as lowLimits from '../../src/cli/low-limits.ts'
import * as callSlot from '../../src/daemon/session/call-slot-layout.ts'
import * as clockPage from '../../src/spec/clock-page.ts'
import * as logs from '../../src/spec/context-logs.ts'
import * as lends from '../../src/spec/lends.ts'
import * as preloadEvents from '../../src/spec/preload-events.ts'
import * as sessionOnly from '../../src/spec/session.ts'
import * as waitTable from '../../src/spec/wait-table.ts'
import * as callMistakes from '../../src/tools/check/call-mistakes.ts'
import * as observe from '../../src/tools/observe/file-layout.ts'
import { repoRoot } from '../paths.ts'
import { compileC, requireTool, scratchFolder } from '../tools.ts'

const session = {
  ...sessionOnly,
  ...preloadEvents,
  ...callSlot,
  ...logs,
  ...waitTable,
  ...lends,
  ...clockPage,
  ...lowLimits,
  ...callMistakes,
}

interface Generator {
  protocolHeader(exports: typeof session): string
  eventsHeader(exports: typeof session): string
  recordsHeader(exports: typeof observe): string
}
const { eventsHeader, protocolHeader, recordsHeader } = (await import(
  pathToFileURL(join(repoRoot, 'scripts/generate-protocol.mjs')).href
)) as Generator

test('the committed headers are current', () => {
  const records = readFileSync(join(repoRoot, 'shim/host/records.h'), 'utf8')
  assert.equal(records, recordsHeader(observe), 'run `npm run build`, which generates shim/host/records.h')
  const committed = readFileSync(join(repoRoot, 'shim/protocol.h'), 'utf8')
  assert.equal(committed, protocolHeader(session), 'run `npm run build`, which generates shim/protocol.h')
  const events = readFileSync(join(repoRoot, 'shim/preload_events.h'), 'utf8')
  assert.equal(events, eventsHeader(session), 'run `npm run build`, which generates shim/preload_events.h')
})

test('the header follows the table', () => {
  const open = session.Messages.open
  const longer = { ...open, fields: [...open.fields, { name: 'openFlags', offset: 8, type: 'u64', size: 8 }], size: 16 }
  const changed = { ...session, Messages: { ...session.Messages, open: longer } } as unknown as typeof session
  assert.match(
    protocolHeader(changed),
    /struct userdma_open \{\n {4}uint32_t node;\n {4}uint32_t wants;\n {4}uint64_t open_flags;\n\};\n.*== 16/,
  )
})

test('fields of messages are naturally aligned, and sizes are multiples of 8 bytes', () => {
  for (const [name, { fields, size }] of Object.entries({ ...session.Messages, ...observe.ObserveStructs })) {
    for (const field of fields)
      assert.equal(field.offset % (field.type === 'bytes' ? 1 : field.size), 0, `${name}.${field.name}`)
    assert.equal(size % 8, 0, name)
  }
})

test('a C compiler lays out the structs as the table says', t => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return
  const folder = scratchFolder()
  const source = join(folder, 'layout.c')
  writeFileSync(source, '#include "protocol.h"\nint main(void) { return 0; }\n')
  compileC(join(folder, 'layout'), [source], ['-I', join(repoRoot, 'shim')])
  writeFileSync(join(folder, 'protocol.h'), protocolHeader(session).replace('uint32_t serial;', 'uint64_t serial;'))
  assert.throws(() => compileC(join(folder, 'layout'), [source], ['-I', folder]), /layout of struct userdma_header/)
})

test('an event of the preload library with a wrong field does not compile', t => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return
  const folder = scratchFolder()
  const source = join(folder, 'event.c')
  const compile = (body: string): void => {
    const declared = 'int64_t message_send(int, uint32_t, uint32_t, const void *, size_t, bool);'
    const includes = ['<stdbool.h>', '<stddef.h>', '"protocol.h"'].map(name => `#include ${name}`).join('\n')
    const text = `${includes}\n${declared}\n#include "preload_events.h"\nvoid tell(int fd)\n{\n    ${body}\n}\n`
    writeFileSync(source, text)
    compileC(join(folder, 'event.o'), [source], ['-c', '-Werror', '-I', join(repoRoot, 'shim')])
  }
  const batch = (field: string): string => `const struct userdma_batch_mistaken batch = {.${field} = 1};`
  compile(`event_polled_gone(fd, 0, 1, 2, 3); ${batch('called')} event_batch_mistaken(fd, 0, &batch);`)
  assert.throws(() => compile('event_polled_gone(fd, 0, 1, 2, 3, 4);'), /too many arguments/)
  assert.throws(() => compile('event_used_gone(0, 1, 2, 3, 4, 5, 6, "ibv_post_send", 7);'), /event_used_gone/)
  assert.throws(() => compile(batch('index')), /no member named .?index/)
  assert.throws(() => compile(`${batch('called')} event_misordered(fd, 0, &batch);`), /userdma_misordered/)
})
