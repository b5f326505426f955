/*
 * `userdma stat --watch`: prints rates per second, at each interval one line for each device with activity, until the
 * daemon ends or the user presses Ctrl-C. With --json each line is the whole stat instead.
 */

import type { ToolSession } from '../daemon/client/tool-session.ts'
import { bytesText } from '../spec/byte-count.ts'
import { DATA_UNIT_BYTES } from '../spec/counters.ts'
import { jsonText } from '../spec/printable.ts'
import type { DeviceStat } from '../uapi/tool.ts'
import { printFromDaemon, type QueryOptions } from './commands/stat.ts'
import { openLooks } from './looks.ts'

type Kind = 'hw_counters' | 'counters' | 'faults'

/**
 * The line about a device's activity in the `seconds` between two stats; undefined if there was none, or if a counter
 * has fallen: the name is now that of another device.
 */
export const rateText = (before: DeviceStat, after: DeviceStat, seconds: number): string | undefined => {
  const rate = (kind: Kind, name: string): number => (after[kind][name]! - (before[kind][name] ?? 0)) / seconds
  const data = (name: string): string => `${bytesText(Math.round(rate('counters', name) * DATA_UNIT_BYTES))}/s`
  const changes = (kind: Kind, names: readonly string[]) =>
    names.map(name => ({ kind, name, perSecond: rate(kind, name) })).filter(({ perSecond }) => perSecond !== 0)
  // `counters` has differences of two counters, which may fall: only the shown ones are compared.
  const bytes = changes('counters', ['port_xmit_data', 'port_rcv_data'])
  const counts = (['hw_counters', 'faults'] as const).flatMap(kind => changes(kind, Object.keys(after[kind])))
  if ([...bytes, ...counts].some(({ perSecond }) => perSecond < 0)) return undefined
  if (bytes.length + counts.length === 0) return undefined
  return [
    `${after.name}  out ${data('port_xmit_data')}`,
    `in ${data('port_rcv_data')}`,
    ...counts.map(
      ({ kind, name, perSecond }) =>
        `${kind === 'faults' ? 'faults ' : ''}${name} ${Number(perSecond.toPrecision(3))}/s`,
    ),
  ].join(', ')
}

/** The lines about all devices; undefined as in `rateText`, and for a device that was added in between. */
export const rateTexts = (
  before: readonly DeviceStat[],
  after: readonly DeviceStat[],
  seconds: number,
): readonly (string | undefined)[] =>
  after.map(device => {
    const previous = before.find(({ name }) => name === device.name)
    return previous && rateText(previous, device, seconds)
  })

/** Prints until the daemon ends. */
export const watchStat = async (
  client: Pick<ToolSession, 'subscribe' | 'ended'>,
  seconds: number,
  json: boolean,
): Promise<void> => {
  const looks = await openLooks(client, seconds, false)
  let before = await looks.next()
  while (before !== undefined) {
    const after = await looks.next()
    if (after === undefined) return
    const elapsed = (after.time - before.time) / 1000
    const lines = json ? [jsonText(after.stat)] : rateTexts(before.stat.devices, after.stat.devices, elapsed)
    const clock = new Date().toTimeString().slice(0, 8)
    for (const line of lines) if (line !== undefined) process.stdout.write(json ? `${line}\n` : `${clock}  ${line}\n`)
    before = after
  }
}

/** The command. `watch`: seconds; true: one. */
export const watch = async (options: QueryOptions & { readonly watch: number | true }): Promise<void> => {
  const seconds = options.watch === true ? 1 : options.watch
  await printFromDaemon(options, async client => {
    await watchStat(client, seconds, options.json === true)
    return ''
  })
}
