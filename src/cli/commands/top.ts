/*
 * `userdma top`: shows devices, processes and queue pairs with their rates, as top(1) does, until the daemon ends or
 * the user quits. With `--batch` it prints each look, with `--json` one object per line.
 */

import type { ToolSession } from '../../daemon/client/tool-session.ts'
import { jsonText } from '../../spec/printable.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { topOptions } from '../command-line/options.ts'
import { beforeEndBySignal } from '../end-signals.ts'
import { UsageError } from '../fail.ts'
import { type Look, openLooks } from '../looks.ts'
import { afterKey, keysOf } from '../top/keys.ts'
import { type Rates, ratesBetween } from '../top/rates.ts'
import { batchText, screenLines, type View, visibleQps } from '../top/screen.ts'
import { printFromDaemon } from './stat.ts'

/** The other screen of the terminal, without cursor; and back. */
const ENTER = '\x1b[?1049h\x1b[?25l'
const LEAVE = '\x1b[?25h\x1b[?1049l'
/** To the upper left corner; the rest of the line; the rest of the screen. */
const HOME = '\x1b[H'
const CLEAR_LINE = '\x1b[K'
const CLEAR_BELOW = '\x1b[J'

const printLooks = async (client: ToolSession, view: View, count: number, json: boolean): Promise<void> => {
  const looks = await openLooks(client, view.delay, true)
  // A first look without rates would be of little use: like vmstat's, the first one shown is that of an interval.
  let before = await looks.next()
  for (let i = 0; i < count && before !== undefined; i++) {
    const after = await looks.next()
    if (after === undefined) return
    const rates = ratesBetween(before, after)
    process.stdout.write(json ? `${jsonText(rates)}\n` : `${i === 0 ? '' : '\n'}${batchText(rates, view)}`)
    before = after
  }
}

const showScreen = async (client: ToolSession, initial: View, count: number): Promise<void> => {
  const { stdin, stdout } = process
  let view = initial
  let rates: Rates | undefined
  let isEnded = false
  let wake = (): void => {}
  const height = (): number => stdout.rows ?? 24
  const draw = (): void => {
    if (rates === undefined) return
    const lines = screenLines(rates, view, stdout.columns ?? 80, height())
    stdout.write(`${HOME}${lines.map(line => line + CLEAR_LINE).join('\r\n')}${CLEAR_BELOW}`)
  }
  const onKeys = (text: string): void => {
    for (const key of keysOf(text)) {
      const total = rates?.queuePairs.length ?? 0
      const result = afterKey(view, key, total, rates === undefined ? 1 : visibleQps(rates, view, height()))
      // A new interval begins at once, and not after the present one.
      const isNewDelay = result.view.delay !== view.delay
      view = result.view
      isEnded ||= result.effect === 'quit'
      if (result.effect !== undefined || isNewDelay) wake()
    }
    draw()
  }
  const leave = (): void => {
    stdin.off('data', onKeys)
    stdin.setRawMode(false)
    stdin.pause()
    stdout.off('resize', draw)
    stdout.write(LEAVE)
  }
  stdout.write(ENTER)
  stdin.setRawMode(true).setEncoding('utf8').on('data', onKeys)
  stdout.on('resize', draw)
  const restoreSignals = beforeEndBySignal(leave)
  try {
    let looks = await openLooks(client, view.delay, true)
    let before: Look | undefined
    for (let i = 0; i < count && !isEnded; ) {
      const woken = new Promise<'woken'>(resolve => {
        wake = () => resolve('woken')
      })
      const after = await Promise.race([looks.next(), woken])
      if (after === 'woken') {
        await looks.end()
        if (!isEnded) looks = await openLooks(client, view.delay, true)
        continue
      }
      if (after === undefined) return
      rates = ratesBetween(before, after)
      before = after
      i++
      draw()
    }
  } finally {
    restoreSignals()
    leave()
  }
}

/** The command. */
export const top = async (options: OptionsOf<typeof topOptions>): Promise<void> => {
  const { delay, json = false, batch = false, count = Number.POSITIVE_INFINITY } = options
  const view: View = { order: 'P', reverse: false, first: 0, delay, help: false }
  if (!json && !batch && !(process.stdin.isTTY && process.stdout.isTTY))
    throw new UsageError('top needs a terminal: use --batch or --json for files and pipes')
  await printFromDaemon(options, async client => {
    if (json || batch) await printLooks(client, view, count, json)
    else await showScreen(client, view, count)
    return ''
  })
}
