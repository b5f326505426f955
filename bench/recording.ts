/*
 * Row "recording filter": the page's filter searches a recording of one connection to its end, of which it needs every
 * packet, compared with reading the same file and computing the checksums of its blocks.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSessionFile } from '../src/cli/session-file.ts'
import { checksum } from '../src/tools/record/checksum.ts'
import { viewOf } from '../src/tools/record/decode.ts'
import { connectionsOf, SessionObjects } from '../src/tools/record/objects.ts'
import { openSession } from '../src/tools/record/reader.ts'
import { compileFilter } from '../web/filter/filter.ts'
import { beginRows, readRows } from '../web/ladder/read-rows.ts'
import type { Row as LadderRow } from '../web/ladder/row.ts'
import { filteredRow, rowFields } from '../web/ladder/row-filter.ts'
import { fieldNames } from '../web/packet/fields.ts'
import type { Bench, Row } from './harness/harness.ts'
import { writeRecordedPairs } from './sides/recorded-pairs.ts'

const FILE_BYTES = 64 * 2 ** 20
const FILTER = 'infiniband.bth.psn == 77 || userdma.outcome == dropped'
/** Bytes of a read of the reference: as the reader's. */
const READ_BYTES = 2 ** 20
/** Microseconds in which the recording has created its objects. */
const CREATED = 1

const names: readonly string[] = [...fieldNames, ...rowFields]

const prepare = async (): Promise<Bench> => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-bench-'))
  const path = join(folder, 'pairs.udma')
  await writeRecordedPairs(path, FILE_BYTES, 1)
  const file = openSessionFile(path)
  const session = await openSession(file)
  const objects = new SessionObjects()
  for await (const event of session.eventsIn({ to: CREATED })) if (event.kind === 'object') objects.add(event)
  const [connection] = connectionsOf(objects)
  const filter = compileFilter(FILTER, name => names.includes(name))
  const isShown = (row: LadderRow): boolean => filter(filteredRow(row, 0))
  const megabytes = file.size / 1e6
  const rate = async (run: () => Promise<void>): Promise<number> => {
    const start = performance.now()
    await run()
    return megabytes / ((performance.now() - start) / 1000)
  }
  return {
    ours: () =>
      rate(async () => {
        const progress = beginRows(connection, undefined, isShown, Number.POSITIVE_INFINITY)
        await readRows(session, connection, progress, async () => {})
        if (progress.matches.length === 0) throw new Error(`no row of the recording matches ${FILTER}`)
      }),
    reference: () =>
      rate(async () => {
        for (let at = 0; at < file.size; at += READ_BYTES) {
          const bytes = await file.read(at, READ_BYTES)
          checksum(viewOf(bytes), bytes.length)
        }
      }),
    note: FILTER,
    close() {
      file.close()
      rmSync(folder, { recursive: true })
    },
  }
}

export const recordingRows: readonly Row[] = [
  {
    name: 'recording filter',
    quantity: "the page's filter, rate through a recording",
    unit: 'MB/s',
    better: 'higher',
    cores: 1,
    reference: 'read and checksum',
    floor: 0.03,
    aim: 0.06,
    prepare,
  },
]
